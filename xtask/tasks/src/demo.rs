//! A cluster on this machine, and a service whose processes all answer.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use crate::run::{programs, workspace};

use crate::{http, leftovers::Traces};

const WORKERS: &str = "3";
/// As `images/hello/service.toml` has it.
const PROCESSES: usize = 6;
const API_PORT: u16 = 7070;
/// How long the cluster may take to come up, and all processes to answer.
const PATIENCE: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(200);

/// Options of `demo`, after `cargo xtask` has checked that both addresses are free.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End the cluster when all processes have answered, and check that nothing of it remains.
    #[arg(long)]
    once: bool,
    /// Where the API listens.
    #[arg(long)]
    api: SocketAddr,
    /// Where the balancer listens.
    #[arg(long)]
    balancer: SocketAddr,
}

pub(crate) fn run(demo: &Demo) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(play(demo))
}

async fn play(demo: &Demo) -> anyhow::Result<()> {
    let (api, balancer) = (demo.api, demo.balancer);
    eprintln!("xtask: 3/5 building the image of images/hello");
    let out = workspace().join("target/images");
    tucano_image_builder::build(&workspace(), &out, &["hello"])
        .context("the image of images/hello cannot be built")?;
    let mut traces = Traces::before(&data_directory(api.port()), [api, balancer])?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut cluster = start(api, balancer)?;
    let result = tokio::select! {
        result = show(demo, &mut traces, api, balancer) => result,
        status = cluster.wait() => return Err(ended(status)),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    stop(&mut cluster).await?;
    result?;
    traces.verify_gone()?;
    eprintln!("xtask: the cluster has ended, and nothing of it remains");
    Ok(())
}

/// Without `--once` it does not return when all is shown.
async fn show(
    demo: &Demo,
    traces: &mut Traces,
    api: SocketAddr,
    balancer: SocketAddr,
) -> anyhow::Result<()> {
    wait_for_workers(api).await?;
    traces.note()?;
    deploy(api).await?;
    let answers = ask_until_all_answered(balancer).await?;
    println!(
        "\n$ curl http://hello.localhost:{}/     # all {} processes have answered through the balancer:",
        balancer.port(),
        answers.len()
    );
    for (process, answer) in &answers {
        println!("  {process:<10} {answer}");
    }
    if demo.once {
        return Ok(());
    }
    println!("{}", guide(api, balancer));
    std::future::pending().await
}

fn start(api: SocketAddr, balancer: SocketAddr) -> anyhow::Result<Child> {
    eprintln!("xtask: 4/5 starting the cluster: tucano dev --workers {WORKERS}");
    // In a process group of its own: an interrupt from the terminal reaches only this program, which ends it in order.
    tucano(api)
        .args([
            "dev",
            "--quiet",
            "--workers",
            WORKERS,
            "--balancer",
            &balancer.to_string(),
        ])
        .process_group(0)
        .spawn()
        .context("cannot start tucano dev")
}

async fn stop(cluster: &mut Child) -> anyhow::Result<()> {
    let pid = cluster
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .context("cannot end tucano dev")?;
    }
    let status = cluster.wait().await?;
    if status.success() {
        Ok(())
    } else {
        Err(ended(Ok(status)))
    }
}

fn ended(status: std::io::Result<ExitStatus>) -> anyhow::Error {
    match status {
        Ok(status) => anyhow::anyhow!("tucano dev ended with {status}"),
        Err(error) => anyhow::Error::new(error).context("tucano dev cannot be waited for"),
    }
}

async fn wait_for_workers(api: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = tucano(api)
            .arg("state")
            .output()
            .await
            .context("cannot run tucano")?;
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let alive = state["alive_nodes"].as_array().map_or(0, Vec::len);
        if alive.to_string() == WORKERS {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "{alive} of {WORKERS} workers are alive after {PATIENCE:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn deploy(api: SocketAddr) -> anyhow::Result<()> {
    let root = workspace();
    eprintln!("xtask: 5/5 deploying: tucano deploy images/hello/service.toml");
    let mut command = tucano(api);
    command
        .arg("deploy")
        .arg(root.join("images/hello/service.toml"));
    command
        .arg("--image")
        .arg(root.join("target/images/hello.tar"));
    let status = command.status().await.context("cannot run tucano")?;
    if status.success() {
        Ok(())
    } else {
        bail!("tucano deploy ended with {status}")
    }
}

/// Each process's answer, by the process's name.
async fn ask_until_all_answered(balancer: SocketAddr) -> anyhow::Result<BTreeMap<String, String>> {
    let deadline = Instant::now() + PATIENCE;
    let mut answers = BTreeMap::new();
    while answers.len() < PROCESSES {
        let (status, body) = http::get(balancer, "hello.localhost", "/")?;
        let process = body
            .split_whitespace()
            .find_map(|word| word.strip_prefix("process="));
        match process {
            Some(process) if status == 200 => {
                answers.insert(process.to_owned(), body.trim().to_owned())
            }
            _ => bail!("the balancer answered {status}: {}", body.trim()),
        };
        if Instant::now() >= deadline {
            bail!(
                "only {} of {PROCESSES} processes have answered after {PATIENCE:?}",
                answers.len()
            );
        }
        tokio::task::yield_now().await;
    }
    Ok(answers)
}

fn guide(api: SocketAddr, balancer: SocketAddr) -> String {
    let program = program();
    let program = program
        .strip_prefix(env::current_dir().unwrap_or_default())
        .unwrap_or(&program);
    let mut tucano = program.display().to_string();
    if api.port() != API_PORT {
        tucano += &format!(" --api http://{api}");
    }
    format!(
        "\nTry, in another terminal:\n  \
         curl http://hello.localhost:{}/\n  \
         {tucano} ps\n  \
         {tucano} scale hello 2\n  \
         {tucano} logs -f hello\n  \
         {tucano} nodes\n  \
         {tucano} rm hello\n\n\
         Ctrl-C ends it, and everything in it.",
        balancer.port()
    )
}

fn tucano(api: SocketAddr) -> Command {
    let mut command = Command::new(program());
    command
        .args(["--api", &format!("http://{api}")])
        .env_remove("TUCANO_TOKEN");
    command.kill_on_drop(false);
    command
}

fn program() -> PathBuf {
    programs().join("tucano")
}

/// As `tucano dev` chooses it.
fn data_directory(api_port: u16) -> PathBuf {
    let state = env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let state = state.as_deref().unwrap_or(Path::new("/var/lib"));
    state.join(format!("tucano/dev-{api_port}"))
}
