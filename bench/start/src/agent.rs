//! The agent's own path from a desired process to a running one: its record is kept, its network namespace connected,
//! its container started by the supervisor that stays, its port forwarded. It runs in this process, with the agent's
//! own code.

use std::{fs, os::fd::AsRawFd, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::task::JoinSet;
use tucano_agent::{
    agent,
    runner::{
        execute::Executor,
        images::ProcessImages,
        state::{DataDir, Record},
    },
    settings::Settings,
};
use tucano_api::{
    agent::DesiredProcess,
    ids::{Digest, NodeName, Revision},
    settings::parse,
};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_oci_image::{Form, Layers, Limits, Platform, Store};
use tucano_oci_runtime::supervisor::Running;

use crate::{
    bundle::CGROUPS,
    contender::{Contender, Measurement},
    place::{Workspace, compile},
};

/// Number of rounds for `count` processes: more for small counts, which are easily disturbed.
fn rounds(count: usize) -> usize {
    (100 / count.max(1)).clamp(5, 20)
}

/// Starts processes concurrently in several rounds, and prints the cost of starting and keeping them. The floor runs
/// in between.
pub(crate) fn measure(
    place: &Workspace,
    runtime: &Path,
    counts: &[usize],
    floor: Option<&Contender<'_>>,
) -> Result<()> {
    // Supervisors outlive their starter; here they are reaped.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let tokio = tokio::runtime::Runtime::new()?;
    tokio.block_on(async {
        let node = Node::make(place, runtime).await?;
        let measured = node.measure(counts, floor).await;
        let (record, running) = &node.resident;
        end(&node.executor, record, running).await?;
        measured
    })
}

struct Node {
    executor: Arc<Executor>,
    /// Runs throughout, so that resources shared by a node's processes are neither created nor removed.
    resident: (Record, Arc<Running>),
    images: ProcessImages,
    digest: Digest,
    name: NodeName,
}

impl Node {
    async fn make(place: &Workspace, runtime: &Path) -> Result<Self> {
        let directory = place.directory("agent")?;
        let text = format!(
            "controller = \"http://127.0.0.1:1\"\nlisten = \"127.0.0.1:1\"\ndata_dir = {directory:?}\nruntime = {runtime:?}\ncgroup = \"/{CGROUPS}\"\n"
        );
        let settings: Settings = parse("agent.toml", &text)?;
        let digest = import(place, &directory)?;
        let executor = agent::executor(&settings)?;
        let name = "bench".parse()?;
        let resident = record(&executor, &digest, "resident-0")?;
        let images = executor.images.of_process(&resident.process).await?;
        let running = executor.start(&resident, &images, &name).await?;
        Ok(Self {
            executor: Arc::new(executor),
            resident: (resident, running),
            images,
            digest,
            name,
        })
    }

    async fn measure(&self, counts: &[usize], floor: Option<&Contender<'_>>) -> Result<()> {
        println!(
            "\n{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "agent", "wall ms", "each ms", "cpu each", "floor ms", "to floor", "starts/s"
        );
        for count in counts {
            let (mut runs, mut floors) = (Vec::new(), Vec::new());
            let rounds = rounds(*count);
            // The first round warms the page cache and is not counted.
            for round in 0..=rounds {
                let measured = self.run_once(*count, round == rounds).await?;
                let floor = floor.map(|one| one.run_once("floor")).transpose()?;
                if round > 0 {
                    runs.push(measured);
                    floors.extend(floor);
                }
            }
            let (middle, each) = (Measurement::median(&runs), 1e3 / *count as f64);
            let floor = floor.map(|_| Measurement::median(&floors).wall);
            let or_none = |number: Option<f64>| {
                number.map_or("-".to_owned(), |number| format!("{number:.2}"))
            };
            println!(
                "{:<24} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>9} {:>9.0}",
                format!("{count} at once"),
                middle.wall * 1e3,
                middle.wall * each,
                middle.cpu * each,
                or_none(floor.map(|floor| floor * 1e3)),
                or_none(floor.map(|floor| middle.wall / *count as f64 / floor)),
                *count as f64 / middle.wall
            );
        }
        Ok(())
    }

    /// Starts processes concurrently and removes them; only the start is measured.
    async fn run_once(&self, count: usize, print_memory_usage: bool) -> Result<Measurement> {
        let names = (0..count).map(|number| format!("bench-{number}"));
        let records = names.map(|name| record(&self.executor, &self.digest, &name));
        let records: Vec<_> = records.collect::<Result<_>>()?;
        let (begin, before) = (Instant::now(), cpu()?);
        let mut starting = JoinSet::new();
        for record in records {
            let (executor, images, name) = (
                Arc::clone(&self.executor),
                self.images.clone(),
                self.name.clone(),
            );
            starting.spawn(async move {
                let running = executor.start(&record, &images, &name).await;
                running.map(|running| (record, running))
            });
        }
        let mut running = Vec::new();
        while let Some(started) = starting.join_next().await {
            running.push(started??);
        }
        let wall = begin.elapsed().as_secs_f64();
        let mut cpu = cpu()? - before;
        for (_, running) in &running {
            cpu += cpu_of(running.pid)? + cpu_of(pid_of(&running.supervisor)?)?;
        }
        if print_memory_usage {
            print_memory(&running)?;
        }
        for (record, running) in &running {
            end(&self.executor, record, running).await?;
        }
        Ok(Measurement { wall, cpu })
    }
}

/// Kills a process, and removes it once its supervisor has recorded the exit status.
async fn end(executor: &Executor, record: &Record, running: &Arc<Running>) -> Result<()> {
    executor
        .kill_all(&record.process.id, Arc::clone(running))
        .await?;
    executor.wait_for_end(record, running).await?;
    executor.remove_all(record).await?;
    rustix::process::wait(rustix::process::WaitOptions::empty())?;
    Ok(())
}

/// A process that keeps running, with its lease.
fn record(executor: &Executor, digest: &Digest, name: &str) -> Result<Record> {
    let config =
        "name = \"bench\"\nconcurrency = 1\nport = 80\nargs = [\"stay\"]\nmemory = \"64MiB\"\n";
    let mut record = Record::new(DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: name.parse()?,
        revision: Revision(1),
        image: digest.clone(),
        config: parse("bench.toml", config)?,
        slot: None,
        volumes: Vec::new(),
        run: None,
    });
    let (lease, ports) = executor.network.lease(&record.process.config)?;
    (record.lease, record.ports) = (Some(lease), ports);
    Ok(record)
}

/// Imports an image of one program, named like the image, into the agent's store and layers.
fn import(place: &Workspace, data: &Path) -> Result<Digest> {
    let program = place.directory("tools")?.join("true");
    compile(include_str!("true.c"), &program)?;
    let layer = Layer::new(
        &[Entry::file("bench", fs::read(&program)?).mode(0o755)],
        Compression::None,
    )?;
    let archive = ImageSpec::new("bench").layer(layer).build()?.archive()?;
    // The lock is released before the agent opens the directory.
    let data = DataDir::open(data)?;
    let store = Store::open(&data.images(), Limits::default())?;
    let image = store.import_archive(&*archive, &Platform::host())?;
    // There is no controller from which the agent could fetch them.
    let open = |form| Layers::open_in_form(&data.layers(), Limits::default(), form);
    let mut layers = open(Form::Erofs)?;
    if layers.try_erofs().is_err() {
        layers = open(Form::Directories)?;
    }
    layers.unpack_all(&store, &image.layers())?;
    Ok(image.digest.to_string().parse()?)
}

/// Memory of each supervisor: resident, proportional, and private.
fn print_memory(running: &[(Record, Arc<Running>)]) -> Result<()> {
    let mut sums = [0; 3];
    for (_, one) in running {
        let pid = pid_of(&one.supervisor)?;
        // After reporting the start it releases memory, and then sleeps.
        while !fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") S ") {
            std::thread::yield_now();
        }
        let fields = memory(pid)?;
        for (sum, field) in sums.iter_mut().zip(fields) {
            *sum += field;
        }
    }
    let each = sums.map(|sum| sum / running.len() as u64);
    println!(
        "{:<24} {} KiB resident, {} KiB by shares, {} KiB of its own",
        format!("supervisor (of {})", running.len()),
        each[0],
        each[1],
        each[2]
    );
    Ok(())
}

fn pid_of(process: &impl AsRawFd) -> Result<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = line.context("no pidfd")?.trim().parse()?;
    ensure!(pid > 0, "the supervisor has ended");
    Ok(pid)
}

fn memory(pid: i32) -> Result<[u64; 3]> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let of = |name: &str| -> u64 {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let words = lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        words.sum()
    };
    let own = of("Private_Clean:") + of("Private_Dirty:");
    Ok([of("Rss:"), of("Pss:"), own])
}

/// CPU time of a running process in seconds (`/proc/<pid>/schedstat`).
fn cpu_of(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds = text.split_whitespace().next().context("no schedstat")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// CPU time of this process and its reaped children in seconds.
fn cpu() -> Result<f64> {
    let own = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(crate::contender::cpu()? + seconds(own.user_time()) + seconds(own.system_time()))
}
