//! Opening the bucket that the configuration names.

use std::sync::Arc;

use anyhow::Context;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::config::{BucketUrl, Config};

/// The bucket. A directory is made if it is not there; S3 is not asked for anything yet.
pub(crate) fn open(config: &Config) -> anyhow::Result<Arc<dyn ObjectStore>> {
    match config.bucket_url() {
        BucketUrl::Directory(path) => {
            std::fs::create_dir_all(&path).with_context(|| {
                format!("cannot make the directory {} (bucket.url)", path.display())
            })?;
            let store = LocalFileSystem::new_with_prefix(&path)
                .with_context(|| format!("cannot use {} (bucket.url)", path.display()))?
                // A volume is trimmed past what was put, so it must survive a power loss.
                .with_fsync(true);
            Ok(Arc::new(store))
        }
        BucketUrl::S3 { bucket, prefix } => {
            let settings = &config.bucket;
            let client = ClientOptions::new()
                .with_allow_http(settings.allow_http)
                .with_connect_timeout(settings.connect_timeout)
                .with_timeout(settings.request_timeout);
            let retry = RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: settings.max_retries as usize,
                retry_timeout: settings.retry_timeout,
            };
            // Credentials come from the environment, by the SDK's usual names.
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_virtual_hosted_style_request(settings.virtual_hosted_style)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint.0.clone());
            }
            if let Some(region) = &settings.region {
                builder = builder.with_region(region.0.clone());
            }
            let store = builder.build().context("cannot set up the S3 client (bucket.*)")?;
            if prefix.is_empty() {
                return Ok(Arc::new(store));
            }
            Ok(Arc::new(PrefixStore::new(store, prefix)))
        }
    }
}
