//! The threads that serve clients.

use std::{io, thread};

use futures_util::future::join_all;
use tokio::{
    runtime,
    sync::oneshot,
    task::{LocalSet, spawn_local},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

use super::Worker;
use crate::{
    core::counters::Thread,
    front::accept::{Acceptor, Listener},
};

/// The running threads. They end, and their connections with them, when this is dropped.
#[derive(Debug)]
pub struct Threads {
    stopped_accepting: Vec<oneshot::Receiver<()>>,
    ended: Vec<oneshot::Receiver<()>>,
    end: DropGuard,
}

impl Threads {
    /// Starts a thread for each element of `listeners`, which accepts from the sockets in it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(acceptor: &Acceptor, listeners: Vec<Vec<Listener>>) -> io::Result<Self> {
        let end = CancellationToken::new();
        let mut threads = Self {
            stopped_accepting: Vec::new(),
            ended: Vec::new(),
            end: end.clone().drop_guard(),
        };
        for (number, listeners) in listeners.into_iter().enumerate() {
            let (stopped, stopped_accepting) = oneshot::channel();
            let (over, ended) = oneshot::channel();
            threads.stopped_accepting.push(stopped_accepting);
            threads.ended.push(ended);
            let (acceptor, end) = (acceptor.clone(), end.clone());
            let run = move || {
                let served = serve(acceptor, Thread(number), listeners, stopped, end);
                if let Err(error) = served {
                    error!(%error, "a thread cannot serve clients");
                }
                over.send(()).ok();
            };
            thread::Builder::new()
                .name(format!("clients-{number}"))
                .spawn(run)?;
        }
        Ok(threads)
    }

    /// Returns when no thread accepts clients any longer.
    pub async fn stopped_accepting(&mut self) {
        join_all(self.stopped_accepting.drain(..)).await;
    }

    /// Ends the threads, with all connections that are open.
    pub async fn end(self) {
        drop(self.end);
        join_all(self.ended).await;
    }
}

fn serve(
    acceptor: Acceptor,
    thread: Thread,
    listeners: Vec<Listener>,
    stopped: oneshot::Sender<()>,
    end: CancellationToken,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let worker = Worker::new(acceptor.plane().clone(), thread);
        spawn_local(worker.clone().follow_routes());
        spawn_local(worker.clone().tick());
        let accepting = listeners
            .into_iter()
            .map(|listener| acceptor.clone().run(worker.clone(), listener));
        let accepted = async {
            for error in join_all(accepting)
                .await
                .into_iter()
                .filter_map(Result::err)
            {
                warn!(%error, "cannot accept clients");
            }
            stopped.send(()).ok();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = accepted => {}
            () = end.cancelled() => {}
        }
    }));
    Ok(())
}
