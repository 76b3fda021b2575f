//! Users of a service, who send requests until they are stopped.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tucano_tests::machines::Machines;

/// Longest time that a request may take: machines are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A user, who sends the next request as soon as there is an answer, each on a new connection.
pub(crate) struct Load {
    enough: Arc<AtomicBool>,
    user: JoinHandle<Asked>,
}

/// How a user fared.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// How many answers were as they should be.
    pub(crate) answers: usize,
    /// The other ones.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Begins to ask for a host at an address in the machines' network.
    pub(crate) fn on(machines: &Machines, address: SocketAddr, host: &'static str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let stopped = enough.clone();
        // A thread stays in the network namespace that it was started from.
        let network = machines.network();
        let user = network
            .enter(|| std::thread::spawn(move || ask_until(&stopped, address, host)))
            .unwrap();
        Self { enough, user }
    }

    /// Waits for the answer under way.
    pub(crate) fn stop(self) -> Asked {
        self.enough.store(true, Ordering::Relaxed);
        self.user.join().unwrap()
    }
}

fn ask_until(enough: &AtomicBool, address: SocketAddr, host: &str) -> Asked {
    let mut asked = Asked::default();
    while !enough.load(Ordering::Relaxed) {
        match ask(address, host) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => asked.answers += 1,
            Ok(answer) => asked.failures.push(answer),
            Err(error) => asked.failures.push(error.to_string()),
        }
    }
    asked
}

fn ask(address: SocketAddr, host: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
