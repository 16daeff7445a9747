//! `sluice-ownership`: explores what is too large for tests. `make model`.
#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::process::ExitCode;

use sluice_ownership::{explore, runs};

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, model) in runs::quick().into_iter().chain(runs::deep()) {
        match explore(&model) {
            Ok(explored) => {
                println!("{name}: {explored:?}");
                if explored.stuck > 0 {
                    code = ExitCode::FAILURE;
                }
            }
            Err(broke) => {
                println!("{name}: {broke}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
