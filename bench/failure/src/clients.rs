//! Clients in a container: each connects, asks, reads the answer, and begins again. None has a time limit of its own.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tucano_tests::containers::Container;

/// The address of the cluster's first service, and the port of its processes.
pub(crate) const SERVICE_ADDRESS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(100, 80, 0, 1), 8080));

/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(5);
/// How long clients have to be answered without a longer gap than [`CALM`] to be through a failure.
const RECOVERED: Duration = Duration::from_secs(5);
/// A gap that a busy machine makes by itself.
const CALM: Duration = Duration::from_millis(500);

/// What one client has seen since the mark.
#[derive(Debug)]
struct Seen {
    last: Instant,
    longest: Duration,
    /// End of the last gap that was longer than [`CALM`].
    calm_since: Instant,
    endpoints: BTreeSet<String>,
}

/// Running clients; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Clients {
    seen: Vec<Arc<Mutex<Seen>>>,
    is_over: Arc<AtomicBool>,
}

impl Clients {
    /// Starts clients in this container.
    pub(crate) fn start(from: &Container, to: SocketAddr, number: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = (0..number).map(|_| {
            let seen = Arc::new(Mutex::new(Seen::now()));
            let (shared, is_over) = (Arc::clone(&seen), Arc::clone(&is_over));
            // A thread inherits the network of the one that starts it.
            from.run(move || std::thread::spawn(move || ask_repeatedly(to, &shared, &is_over)));
            seen
        });
        let seen = seen.collect();
        Self { seen, is_over }
    }

    /// How many processes have answered since the mark.
    pub(crate) fn endpoints(&self) -> usize {
        let seen = self.seen.iter();
        let all = seen.flat_map(|it| lock(it).endpoints.iter().cloned().collect::<Vec<_>>());
        all.collect::<BTreeSet<_>>().len()
    }

    /// Forgets what was seen before.
    pub(crate) fn mark(&self) {
        self.seen.iter().for_each(|it| *lock(it) = Seen::now());
    }

    /// Whether each client has been answered for a while without a long gap.
    pub(crate) fn have_recovered(&self) -> bool {
        self.seen.iter().all(|it| {
            let seen = lock(it);
            seen.calm_since.elapsed() >= RECOVERED && seen.last.elapsed() < CALM
        })
    }

    /// The longest time between two answers of a client.
    pub(crate) fn longest_gap(&self) -> Duration {
        let longest = self.seen.iter().map(|it| lock(it).longest);
        longest.max().unwrap_or_default()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn now() -> Self {
        Self {
            last: Instant::now(),
            longest: Duration::ZERO,
            calm_since: Instant::now(),
            endpoints: BTreeSet::new(),
        }
    }

    fn answered(&mut self, endpoint: String) {
        let now = Instant::now();
        let gap = now - self.last;
        self.longest = self.longest.max(gap);
        if gap > CALM {
            self.calm_since = now;
        }
        self.last = now;
        self.endpoints.insert(endpoint);
    }
}

#[allow(clippy::disallowed_methods, reason = "the pace of the clients")]
fn ask_repeatedly(to: SocketAddr, seen: &Mutex<Seen>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(endpoint) = ask(to) {
            lock(seen).answered(endpoint);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The process that answers a request.
fn ask(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let process = text.split("process=").nth(1);
    let process = process.and_then(|it| it.split_whitespace().next());
    process.map_or_else(
        || Err(io::ErrorKind::UnexpectedEof.into()),
        |it| Ok(it.to_owned()),
    )
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
