//! Opening the bucket that the configuration names, behind the client that the process shares.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use sluice_bucket::http::Connector;
use sluice_bucket::{Bucket, BucketMetrics, BucketOptions};
use sluice_model::Entropy;

use crate::config::{BucketUrl, Config};

/// What the body of a large request may take beyond the time of a small one.
const LARGEST_BODY: Duration = Duration::from_secs(600);

/// The bucket, for the foreground. A directory is made if it is not there; S3 is not asked for anything
/// yet.
pub(crate) fn open(
    config: &Config,
    entropy: Arc<dyn Entropy>,
    metrics: BucketMetrics,
) -> anyhow::Result<Bucket> {
    let settings = &config.bucket;
    let options = BucketOptions {
        read_timeout: settings.read_timeout,
        write_timeout: settings.request_timeout,
        deadline: settings.retry_timeout,
        max_retries: settings.max_retries,
        max_requests: settings.max_requests,
        max_rate: Some(settings.max_requests_per_second).filter(|rate| *rate > 0),
        hedge_percent: settings.hedge_percent,
    };
    Ok(Bucket::new(store(config)?, options, entropy, metrics))
}

/// The store itself, which tries nothing again.
fn store(config: &Config) -> anyhow::Result<Arc<dyn ObjectStore>> {
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
            let connector = Connector {
                allow_http: settings.allow_http,
                connect_timeout: settings.connect_timeout,
                // Tries have times of their own; this one ends a connection that they have given up.
                timeout: settings.request_timeout.saturating_add(LARGEST_BODY),
            };
            let client = ClientOptions::new()
                .with_allow_http(connector.allow_http)
                .with_connect_timeout(connector.connect_timeout)
                .with_timeout(connector.timeout);
            let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
            // Credentials come from the environment, by the SDK's usual names.
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_virtual_hosted_style_request(settings.virtual_hosted_style)
                .with_unsigned_payload(!config.signs_bodies())
                .with_client_options(client)
                .with_retry(retry)
                .with_http_connector(connector);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint.0.clone());
            }
            if let Some(region) = &settings.region {
                builder = builder.with_region(region.0.clone());
            }
            if let Some(checksum) = settings.checksum.algorithm() {
                builder = builder.with_checksum_algorithm(checksum);
            }
            let store = builder.build().context("cannot set up the S3 client (bucket.*)")?;
            if prefix.is_empty() {
                return Ok(Arc::new(store));
            }
            Ok(Arc::new(PrefixStore::new(store, prefix)))
        }
    }
}
