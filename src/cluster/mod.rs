//! `sluice cluster`: what operators see and change of who has which volume.
//!
//! It reads and writes the catalog by the configuration of a node, and talks to no process: it works while nodes are
//! down. What it asks for is done by the nodes that are alive. With the embedded catalog it works while no process
//! has that open.

mod look;
mod steer;
mod streams;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use sluice_catalog::{Catalog, CatalogOptions};
use sluice_model::{CatalogLimits, Entropy, GroupDefaults, TenantId, TopicDefaults};

use crate::catalog_store::OpenStore;
use crate::cli;
use crate::config::{CatalogStore, Config};
use crate::seams::SystemEntropy;
use crate::tools::{self, Output, Verdict};

pub(crate) const EXAMPLES: &str = "\
Examples:
  sluice cluster status --config /etc/sluice/sluice.toml
  sluice cluster volumes --output json
  sluice cluster move 4 --to 2
  sluice cluster move-stream orders/3 --to 1
  sluice cluster drain 3                  before node 3 is taken down for long
  sluice cluster balance off

Every command takes the configuration of any node of the cluster; nodes may be down meanwhile.

Exit codes: 0 it is so, 1 it is not so (yet), 2 it could not be done.";

/// What is asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// The cluster in a few lines: nodes, volumes, what moves, what the balancer did last
    Status(Look),
    /// Every node, what it carries and whether it is drained
    Nodes(Look),
    /// Every volume, who has it and who shall have it
    Volumes(Look),
    /// Have a volume handed over to another node, and wait until that serves it
    Move(Move),
    /// Have a partition move to another volume, and wait until it is there; nothing is copied
    MoveStream(MoveStream),
    /// Have a node hand over all volumes that others reach, and give it none
    Drain(OfNode),
    /// Let a drained node have volumes again
    Undrain(OfNode),
    /// Say whether volumes are moved to even out what nodes carry
    Balance(Balance),
}

/// Where the cluster is, and how an answer is written.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Configuration file, as for `sluice up` [default: the one that SLUICE_CONFIG names, or none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [key: data_dir]
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A volume and its next owner.
#[derive(Debug, Args)]
pub(crate) struct Move {
    /// The volume's number
    #[arg(value_name = "VOLUME")]
    volume: u32,
    /// The node that shall have it
    #[arg(long, value_name = "NODE")]
    to: u32,
    /// How many seconds to wait until it is done
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    #[command(flatten)]
    look: Look,
}

/// A partition and its next volume.
#[derive(Debug, Args)]
pub(crate) struct MoveStream {
    /// The topic's name and the partition's number
    #[arg(value_name = "TOPIC/PARTITION")]
    partition: streams::Partition,
    /// The volume that it shall be on
    #[arg(long, value_name = "VOLUME")]
    to: u32,
    /// Whose topic it is, by the tenant's number
    #[arg(long, value_name = "TENANT", default_value_t = TenantId::OPEN.0)]
    tenant: u32,
    /// How many seconds to wait until it is done
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    #[command(flatten)]
    look: Look,
}

/// A node.
#[derive(Debug, Args)]
pub(crate) struct OfNode {
    /// The node's number
    #[arg(value_name = "NODE")]
    node: u32,
    /// How many seconds to wait until it is done
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    look: Look,
}

/// Whether volumes are moved.
#[derive(Debug, Args)]
pub(crate) struct Balance {
    /// Whether they are
    #[arg(value_enum)]
    switch: Switch,
    #[command(flatten)]
    look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Does it. What kept it from its work is an error on stderr, and code 2.
pub(crate) fn run(command: ClusterCommand) -> ExitCode {
    tools::run(async move {
        match command {
            ClusterCommand::Status(look) => with(&look, look::status).await,
            ClusterCommand::Nodes(look) => with(&look, look::nodes).await,
            ClusterCommand::Volumes(look) => with(&look, look::volumes).await,
            ClusterCommand::Move(asked) => {
                let within = Duration::from_secs(asked.timeout);
                with(&asked.look, async |catalog, output| {
                    steer::move_volume(catalog, asked.volume, asked.to, within, output).await
                })
                .await
            }
            ClusterCommand::MoveStream(asked) => {
                let within = Duration::from_secs(asked.timeout);
                with(&asked.look, async |catalog, output| {
                    let MoveStream { partition, tenant, to, .. } = &asked;
                    streams::move_stream(catalog, partition, *tenant, *to, within, output).await
                })
                .await
            }
            ClusterCommand::Drain(asked) => {
                let within = Duration::from_secs(asked.timeout);
                with(&asked.look, async |catalog, output| {
                    steer::drain(catalog, asked.node, within, output).await
                })
                .await
            }
            ClusterCommand::Undrain(asked) => {
                with(&asked.look, async |catalog, output| {
                    steer::undrain(catalog, asked.node, output).await
                })
                .await
            }
            ClusterCommand::Balance(asked) => {
                with(&asked.look, async |catalog, output| {
                    steer::balance(catalog, asked.switch == Switch::On, output).await
                })
                .await
            }
        }
    })
}

/// Opens the catalog that the configuration names, does it, and closes it.
async fn with(
    look: &Look,
    work: impl AsyncFnOnce(&Catalog, Output) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    let data_dir = look.data_dir.clone().map(|dir| ("data_dir", "--data-dir", dir));
    let flags = Vec::from_iter(data_dir);
    let loaded = cli::load(look.config.clone(), std::env::vars_os().collect(), flags);
    let config = loaded.map_err(anyhow::Error::msg)?.config;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let store = open(&config, &entropy).await?;
    let options = CatalogOptions {
        entropy,
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    let catalog = Catalog::open(store.handle(), options).await?;
    let done = work(&catalog, look.output).await;
    drop(catalog);
    store.close().await;
    done
}

/// The store of a cluster that is there: none is made.
async fn open(config: &Config, entropy: &Arc<dyn Entropy>) -> anyhow::Result<OpenStore> {
    let dir = config.data_dir.join("catalog");
    if config.catalog.store == CatalogStore::Embedded {
        ensure!(
            dir.exists(),
            "there is no catalog in {}: say where the cluster is with --config or --data-dir",
            config.data_dir.display()
        );
        return OpenStore::open(config, entropy).await.context(
            "the catalog is embedded, so this works while no process has it open; a cluster of several nodes \
             has its catalog in etcd",
        );
    }
    let store = OpenStore::open(config, entropy).await?;
    let cluster = store.handle().get("/sluice/cluster").await?;
    ensure!(
        cluster.is_some(),
        "there is no cluster under {} in etcd: look at catalog.etcd.prefix",
        config.catalog.etcd.prefix.0
    );
    Ok(store)
}
