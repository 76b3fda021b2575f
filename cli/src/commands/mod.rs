//! What each command does.

mod adopt;
mod application;
mod backup;
mod balancer_certificate;
mod check;
mod deploy;
mod exec;
mod init;
mod jobs;
mod logs;
mod plan;
mod remove;
mod restart;
mod rollback;
mod run;
mod scale;
mod secret;
mod show;
mod volume;

use crate::{
    Arguments, Error,
    args::{Command, Global},
    client::Client,
    dev,
};

pub(crate) use check::find_program;
pub(crate) use deploy::deploy;

/// The registry in which short names of images are looked for, if the controller lists it.
const DOCKER: &str = "docker.io";

/// Runs the command of the arguments.
///
/// # Errors
/// Each with the exit code that `tucano --help` documents.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { global, command } = arguments;
    let client = || Client::new(&global);
    match command {
        Command::Deploy(deploy) => deploy::run(&client()?, &global, &deploy).await,
        Command::Plan(deploy) => plan::run(&client()?, &global, &deploy).await,
        Command::Init(arguments) => init::run(client, &global, &arguments).await,
        Command::Ps { service, app } => match service {
            Some(name) => show::service(&client()?, &global, &name).await,
            None => show::processes(&client()?, &global, app.as_ref()).await,
        },
        Command::Services { service, app } => match service {
            Some(name) => show::paths(&client()?, &global, &name).await,
            None => show::services(&client()?, &global, app.as_ref()).await,
        },
        Command::Nodes => show::nodes(&client()?, &global).await,
        Command::Adopt { yes } => adopt::run(&client()?, &global, yes).await,
        Command::BalancerCertificate { name, request } => {
            balancer_certificate::run(&client()?, &global, name, &request).await
        }
        Command::Secret(command) => secret::run(&client()?, &global, &command).await,
        Command::State => show::state(&client()?).await,
        Command::Scale {
            name,
            concurrency,
            wait,
        } => scale::run(&client()?, &global, &name, concurrency, wait).await,
        Command::Revisions { name } => show::revisions(&client()?, &global, &name).await,
        Command::Rollback {
            name,
            revision,
            wait,
        } => rollback::run(&client()?, &global, &name, revision, wait).await,
        Command::Restart { name, wait } => restart::run(&client()?, &global, &name, wait).await,
        Command::Jobs { name } => jobs::run(&client()?, &global, name.as_ref()).await,
        Command::Run(arguments) => run::run(&client()?, &global, &arguments).await,
        Command::Logs(logs) => logs::run(&client()?, &global, &logs).await,
        Command::Exec(command) => {
            let run = async { exec::run(&client()?, &command).await };
            run.await.map_err(Error::of_exec)
        }
        Command::Rm {
            name,
            app,
            volumes,
            yes,
            wait,
        } => {
            let volumes = remove::Volumes {
                remove: volumes,
                yes,
            };
            match (name, app) {
                (Some(name), _) => remove::run(&client()?, &global, &name, volumes, wait).await,
                (None, Some(app)) => remove::all(&client()?, &global, &app, volumes, wait).await,
                (None, None) => Err(Error::Usage("name a service, or use --app".to_owned())),
            }
        }
        Command::Volume(command) => volume::run(&client()?, &global, &command).await,
        Command::Check { file } => check::run(&global, &file).await,
        Command::Dev(dev) => dev::run(listen_address(&global)?, &dev).await,
    }
}

/// For `dev`, `--api` is the address to listen on.
fn listen_address(global: &Global) -> Result<std::net::SocketAddr, Error> {
    let text = global
        .api
        .trim_start_matches("http://")
        .trim_end_matches('/');
    text.parse().map_err(|_| {
        let message = format!(
            "--api {:?}: write the address to listen on, such as 127.0.0.1:7070",
            global.api
        );
        Error::Usage(message)
    })
}
