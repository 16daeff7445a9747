//! Two owners of one volume, on one block device that two hosts see. Runs inside the virtual machine that
//! `loadtest/fencing/run` starts: `owners DEV_A DEV_B PLAIN NAME`, where DEV_A and DEV_B are the same
//! storage over two paths that it takes for two hosts, PLAIN is a device without reservations, and
//! NAME is the transport's, for the output. One line a scenario, "ok ..." or "FAILED ...".
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod image;
mod load;
mod rig;
mod scenarios;
mod zombie;

use std::process::ExitCode;

use rig::Rig;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [a, b, plain, name] = <[String; 4]>::try_from(arguments)
        .map_err(|_| anyhow::anyhow!("usage: owners DEV_A DEV_B PLAIN NAME"))?;
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_target(false)
        .with_level(false)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let failed =
        runtime.block_on(scenarios::all(Rig::new(&name, [a.into(), b.into()], plain.into())));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
