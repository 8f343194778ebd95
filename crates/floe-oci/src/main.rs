//! An OCI runtime with runc's command line, for engines to call.

mod arguments;
mod command;
mod flags;
mod log;
mod seal;

use std::process::ExitCode;

use flags::Command;

fn main() -> ExitCode {
    let arguments = arguments::normal(std::env::args_os());
    if let Err(error) = seal::before_entering(&arguments) {
        return log::Log::default().fail(&error, 1);
    }
    let flags = match flags::parse(&arguments) {
        Ok(flags) => flags,
        Err(refused) => return refused.print(),
    };
    let log = log::Log::new(&flags.global);
    let failure = flags.command.failure_code();
    match run(flags, &log) {
        Ok(code) => code,
        Err(error) => log.fail(&error, failure),
    }
}

fn run(flags: flags::Flags, log: &log::Log) -> anyhow::Result<ExitCode> {
    let global = flags.global;
    match flags.command {
        Command::Create(flags) => command::create::create(&global, flags, log),
        Command::Start(flags) => command::start::start(&global, &flags, log),
        Command::Run(flags) => command::run::run(&global, flags, log),
        Command::Exec(flags) => command::exec::exec(&global, *flags),
        Command::State(flags) => command::query::state(&global, &flags),
        Command::List(flags) => command::query::list(&global, &flags),
        Command::Ps(flags) => command::query::processes(&global, &flags),
        Command::Kill(flags) => command::control::kill(&global, &flags),
        Command::Delete(flags) => command::control::delete(&global, &flags, log),
        Command::Pause(flags) => command::control::pause(&global, &flags),
        Command::Resume(flags) => command::control::resume(&global, &flags),
        Command::Update(flags) => command::update::update(&global, &flags),
        Command::Events(flags) => command::events::events(&global, &flags),
        Command::Checkpoint(flags) => command::checkpoint::checkpoint(&global, &flags, log),
        Command::Restore(flags) => command::restore::restore(&global, *flags, log),
        Command::Features => command::features::features(&global),
        Command::Spec(flags) => command::spec::spec(&flags),
    }
}
