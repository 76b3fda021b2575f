//! Accepts connections, one thread each, and stops gracefully: on SIGTERM no connection is accepted
//! any more, running requests are finished, and the program ends with 0.

use std::{
    io::{self, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    http::{Exchange, Head},
    settings::variable,
};

/// A connection's thread needs little; many must fit into a small container.
const STACK_BYTES: usize = 256 << 10;

/// Answers one request.
pub type Respond = fn(&mut Exchange<'_>) -> io::Result<()>;

/// Listens on `$PORT` (8080 when unset) and answers until SIGTERM or SIGINT: a program's whole main.
pub fn run(respond: Respond) -> ExitCode {
    let served = listen(variable("PORT", 8080)).and_then(|listener| serve(&listener, respond));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens on every address of the container, including IPv6 if available.
///
/// # Errors
/// If the port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Answers until SIGTERM or SIGINT, then finishes running requests.
///
/// # Errors
/// If the listening socket breaks or signals cannot be handled.
pub fn serve(listener: &TcpListener, respond: Respond) -> io::Result<()> {
    let work = Arc::new(Work::default());
    let own = listener.local_addr()?;
    stop_on_signal(Arc::clone(&work), own)?;
    eprintln!("listening on port {}", own.port());
    while !work.is_stopping() {
        match listener.accept() {
            Ok((connection, _)) => begin(connection, respond, &work),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    take_the_queued(listener, respond, &work)?;
    work.wait_until_done();
    Ok(())
}

/// The number of running requests, and whether new ones are accepted.
#[derive(Debug, Default)]
struct Work {
    requests: Mutex<usize>,
    one_done: Condvar,
    stopping: AtomicBool,
}

impl Work {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> Request {
        *self.count() += 1;
        Request(Arc::clone(self))
    }

    fn wait_until_done(&self) {
        let at_work = self
            .one_done
            .wait_while(self.count(), |requests| *requests > 0);
        drop(at_work);
    }
}

/// A running request.
struct Request(Arc<Work>);

impl Drop for Request {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.one_done.notify_all();
    }
}

fn stop_on_signal(work: Arc<Work>, own: SocketAddr) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let wake = SocketAddr::new(loopback_of(own), own.port());
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if signals.forever().next().is_some() {
                work.stopping.store(true, Ordering::SeqCst);
                // Accepting blocks; a connection of our own ends it.
                if let Err(error) = TcpStream::connect(wake) {
                    eprintln!("cannot stop accepting: {error}");
                    std::process::exit(1);
                }
            }
        })?;
    Ok(())
}

fn loopback_of(own: SocketAddr) -> std::net::IpAddr {
    if own.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    }
}

/// Answers connections that the kernel accepted before the signal.
fn take_the_queued(listener: &TcpListener, respond: Respond, work: &Arc<Work>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    while let Ok((connection, _)) = listener.accept() {
        begin(connection, respond, work);
    }
    Ok(())
}

fn begin(connection: TcpStream, respond: Respond, work: &Arc<Work>) {
    let spare = connection.try_clone();
    let work = Arc::clone(work);
    let begun = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || converse(connection, respond, &work));
    if begun.is_err() {
        refuse(spare);
    }
}

/// Answers 503 at the container's limit of threads.
fn refuse(connection: io::Result<TcpStream>) {
    let answer =
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    if let Err(error) = connection.and_then(|mut connection| connection.write_all(answer)) {
        eprintln!("cannot refuse a connection: {error}");
    }
}

fn converse(connection: TcpStream, respond: Respond, work: &Arc<Work>) {
    if let Err(error) = connection.set_nodelay(true) {
        eprintln!("cannot send small answers at once: {error}");
    }
    let mut reader = BufReader::new(connection);
    loop {
        match answer_one(&mut reader, respond, work) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return eprintln!("connection lost: {error}"),
        }
    }
}

fn answer_one(
    reader: &mut BufReader<TcpStream>,
    respond: Respond,
    work: &Arc<Work>,
) -> io::Result<bool> {
    let Some(head) = Head::read(reader)? else {
        return Ok(false);
    };
    // An upgraded connection may never end: stopping does not wait for it.
    let at_work = head.header("upgrade").is_none().then(|| work.begin());
    let mut exchange = Exchange::new(head, reader, work.is_stopping())?;
    respond(&mut exchange)?;
    let goes_on = exchange.finish()?;
    drop(at_work);
    Ok(goes_on)
}
