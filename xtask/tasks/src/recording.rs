//! `cargo xtask recording`: the demo as a picture, `docs/demo.svg`, of what a terminal showed in a real run.

mod svg;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::run::{programs, workspace};

use self::svg::Line;

/// Pause between what one command showed and the next command, as a person takes it.
const PAUSE: Duration = Duration::from_millis(1500);
/// How long the demo may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// The last line of the demo: it goes on until it is ended.
const LAST: &str = "Ctrl-C ends it";

pub(crate) fn run() -> anyhow::Result<()> {
    let (api, balancer) = (free_address(7070)?, free_address(8080)?);
    let mut recording = Recording::default();
    recording.command("cargo xtask demo");
    let mut demo = demo(api, balancer)?;
    let shown = recording.follow(&mut demo);
    let session = shown.and_then(|()| recording.session(api, balancer));
    end(&mut demo)?;
    session?;
    let picture = workspace().join("docs/demo.svg");
    fs::write(&picture, svg::draw(&recording.lines))
        .with_context(|| format!("cannot write {}", picture.display()))?;
    println!("{}", picture.display());
    Ok(())
}

/// The usual port, or else any that is free.
fn free_address(usual: u16) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, usual))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?)
}

fn demo(api: SocketAddr, balancer: SocketAddr) -> anyhow::Result<Child> {
    Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .arg(programs().join("xtask_tasks"))
        .args(["demo", "--api", &api.to_string()])
        .args(["--balancer", &balancer.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the demo")
}

fn end(demo: &mut Child) -> anyhow::Result<()> {
    let pid = i32::try_from(demo.id()).ok();
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .context("cannot end the demo")?;
    }
    demo.wait()?;
    Ok(())
}

/// What the terminal shows, and when.
#[derive(Debug, Default)]
struct Recording {
    lines: Vec<Line>,
    now: Duration,
}

impl Recording {
    fn command(&mut self, text: &str) {
        self.now += PAUSE;
        self.push(format!("$ {text}"));
        self.now += PAUSE / 3;
    }

    fn push(&mut self, text: String) {
        self.lines.push(Line { at: self.now, text });
    }

    /// What the demo prints, at the time it prints it, until it waits for its end.
    fn follow(&mut self, demo: &mut Child) -> anyhow::Result<()> {
        let output = demo.stdout.take().context("the demo has no output")?;
        let (began, offset) = (Instant::now(), self.now);
        for line in BufReader::new(output).lines() {
            let line = line?;
            self.now = offset + began.elapsed();
            let is_last = line.starts_with(LAST);
            self.push(line);
            if is_last {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("the demo has not come up after {PATIENCE:?}");
            }
        }
        bail!("the demo ended before it was up")
    }

    /// What a person does next, in another terminal.
    fn session(&mut self, api: SocketAddr, balancer: SocketAddr) -> anyhow::Result<()> {
        let api = format!("http://{api}");
        self.run(&api, &["ps"])?;
        self.run(&api, &["scale", "hello", "2"])?;
        self.command("curl http://hello.localhost:8080/");
        let (_, answer) = crate::http::get(balancer, "hello.localhost", "/")?;
        self.push(answer.trim_end().to_owned());
        Ok(())
    }

    fn run(&mut self, api: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.command(&format!("tucano {}", arguments.join(" ")));
        let output = Command::new(programs().join("tucano"))
            .args(["--api", api])
            .args(arguments)
            .env("COLUMNS", svg::COLUMNS.to_string())
            .output()
            .context("cannot run tucano")?;
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            self.push(line.to_owned());
        }
        Ok(())
    }
}
