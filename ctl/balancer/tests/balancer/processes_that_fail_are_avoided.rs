use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};
use tucano_balancer::limits::Limits;

use crate::support::{
    Client, Lab, Origin, ask, endpoint, hello, refusing_address, service, silent_address, soon,
    until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\r\nbody";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\r\nbody";

/// Reads one request and breaks off without a word.
async fn breaking() -> Origin {
    Origin::serving(|mut peer| async move {
        peer.request().await;
    })
    .await
}

/// Takes requests and never answers.
async fn hanging() -> Origin {
    Origin::serving(|mut peer| async move { while peer.request().await.is_some() {} }).await
}

#[tokio::test]
async fn no_client_notices_a_process_that_refuses_connections() {
    let good = Origin::tagged("good").await;
    let (refusing, _guard) = refusing_address();
    let endpoints = vec![endpoint(0, refusing), endpoint(1, good.address)];
    let lab = Lab::new(vec![service("hello", endpoints)]).await;
    for _ in 0..10 {
        for request in [GET, POST, PUT] {
            let reply = ask(lab.address, request).await;
            assert_eq!((reply.status, reply.body.as_str()), (200, "good"));
        }
    }
    assert_eq!(good.seen().len(), 30, "each request once");
}

#[tokio::test]
async fn more_dead_processes_than_tries_are_no_reason_to_fail() {
    let good = Origin::tagged("good").await;
    let refusing: Vec<_> = (0..8).map(|_| refusing_address()).collect();
    let mut endpoints: Vec<_> = refusing
        .iter()
        .enumerate()
        .map(|(n, (address, _))| endpoint(n, *address))
        .collect();
    endpoints.push(endpoint(8, good.address));
    let lab = Lab::new(vec![service("hello", endpoints)]).await;
    assert_eq!(lab.get("/").await.body, "good");
}

#[tokio::test]
async fn a_process_that_does_not_accept_in_time_is_passed_over() {
    let good = Origin::tagged("good").await;
    let (silent, _guard) = silent_address().await;
    let endpoints = vec![endpoint(0, silent), endpoint(1, good.address)];
    let limits = Limits {
        connect_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let lab = Lab::with_limits(vec![service("hello", endpoints)], limits).await;
    assert_eq!(lab.bodies(4).await.concat(), "goodgoodgoodgood");
}

#[tokio::test]
async fn after_a_failed_process_another_node_comes_first() {
    let good = Origin::tagged("other node").await;
    let (first, _guard) = refusing_address();
    let (second, _guard) = refusing_address();
    let mut endpoints = vec![
        endpoint(0, first),
        endpoint(1, second),
        endpoint(2, good.address),
    ];
    endpoints[1].node = endpoints[0].node.clone();
    // Were the second one tried next, the time for connecting would be over.
    let limits = Limits {
        connect_total_timeout: Duration::from_secs(20),
        ..Limits::default()
    };
    let lab = Lab::with_limits(vec![service("hello", endpoints)], limits).await;
    assert_eq!(lab.get("/").await.body, "other node");
    let ejections = tucano_balancer::metrics::render(&lab.balancer).unwrap();
    assert!(
        ejections.contains("ejections_total{service=\"hello\"} 1"),
        "{ejections}"
    );
}

#[tokio::test]
async fn a_process_that_is_back_gets_requests_again() {
    let good = Origin::tagged("a").await;
    let (address, socket) = refusing_address();
    let endpoints = vec![endpoint(0, address), endpoint(1, good.address)];
    let limits = Limits {
        eject_min: Duration::from_millis(20),
        eject_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let lab = Lab::with_limits(vec![service("hello", endpoints)], limits).await;
    assert_eq!(lab.bodies(2).await.concat(), "aa");
    let _back = Origin::on(socket.listen(16).unwrap(), |mut peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
                .await;
        }
    });
    soon("a request to the process that is back", async {
        while lab.get("/").await.body != "b" {}
    })
    .await;
}

#[tokio::test]
async fn when_all_are_ejected_they_are_tried_all_the_same() {
    let (address, socket) = refusing_address();
    let lab = Lab::new(vec![service("hello", vec![endpoint(0, address)])]).await;
    assert_eq!(lab.get("/").await.status, 502);
    let _back = Origin::on(socket.listen(16).unwrap(), |mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
            .await;
    });
    assert_eq!(
        lab.get("/").await.body,
        "b",
        "although its pause is not over"
    );
}

#[tokio::test]
async fn a_broken_connection_is_retried_for_what_may_be_repeated() {
    let (breaking, good) = (breaking().await, Origin::tagged("good").await);
    let lab = Lab::new(hello(&[&breaking, &good])).await;
    let reply = lab.get("/").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "good"));
    assert_eq!(breaking.seen().len(), 1);
}

#[tokio::test]
async fn a_broken_connection_is_502_for_what_may_not_be_repeated() {
    let (breaking, good) = (breaking().await, Origin::tagged("good").await);
    let lab = Lab::new(hello(&[&breaking, &good])).await;
    let reply = ask(lab.address, POST).await;
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.body,
        "the process of service hello closed the connection before it answered\n"
    );
    lab.get("/").await; // to the good one: whose turn it is goes on
    let reply = ask(lab.address, PUT).await;
    assert_eq!(reply.status, 502, "its body was sent already");
    assert_eq!(good.seen().len(), 1);
}

#[tokio::test]
async fn a_request_is_sent_as_often_as_allowed_and_not_more() {
    let origins = [
        breaking().await,
        breaking().await,
        breaking().await,
        breaking().await,
    ];
    let limits = Limits {
        tries: 2,
        ..Limits::default()
    };
    let lab = Lab::with_limits(hello(&origins.each_ref()), limits).await;
    assert_eq!(lab.get("/").await.status, 502);
    let sent: usize = origins.iter().map(|origin| origin.seen().len()).sum();
    assert_eq!(sent, 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_process_closed_is_not_the_clients_trouble() {
    // Closes every connection after one response, without having said so.
    let origin = Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            .await;
    })
    .await;
    let lab = Lab::new(hello(&[&origin])).await;
    for _ in 0..20 {
        assert_eq!(lab.get("/").await.status, 200);
    }
    assert_eq!(origin.seen().len(), 20);
}

#[tokio::test]
async fn garbage_is_502_and_not_asked_for_twice() {
    let other = Origin::tagged("other").await;
    for garbage in [
        &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: surprise\r\nConnection: upgrade\r\n\r\n",
    ] {
        let origin = Origin::replying(garbage).await;
        let lab = Lab::new(hello(&[&origin, &other])).await;
        let reply = lab.get("/").await;
        let shown = String::from_utf8_lossy(garbage);
        assert_eq!(reply.status, 502, "{shown}");
        assert_eq!(
            reply.body, "the process of service hello gave an invalid response\n",
            "{shown}"
        );
        assert_eq!(origin.seen().len(), 1, "{shown}");
    }
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn too_large_a_response_head_is_502() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(600 * 1024));
    for head in [many, long] {
        let origin = Origin::replying(head).await;
        let lab = Lab::new(hello(&[&origin])).await;
        assert_eq!(lab.get("/").await.status, 502);
    }
}

#[tokio::test]
async fn no_response_in_time_is_504() {
    let hanging = hanging().await;
    let limits = Limits {
        response_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let lab = Lab::with_limits(hello(&[&hanging]), limits).await;
    let reply = lab.get("/").await;
    assert_eq!(reply.status, 504);
    assert_eq!(
        reply.body,
        "the process of service hello did not answer in time\n"
    );
}

#[tokio::test]
async fn the_clock_for_a_response_stands_still_while_the_client_sends() {
    let origin = Origin::tagged("good").await;
    let limits = Limits {
        response_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let lab = Lab::with_limits(hello(&[&origin]), limits).await;
    let mut client = Client::connect(lab.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 6\r\n\r\n")
        .await;
    for byte in "abcdef".bytes() {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.send([byte]).await;
    }
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_lost_process_is_not_waited_for() {
    let (hanging, good) = (hanging().await, Origin::tagged("good").await);
    let lab = Lab::new(hello(&[&hanging])).await;
    let mut waiting = Client::connect(lab.address).await;
    waiting.send(GET).await;
    let mut posting = Client::connect(lab.address).await;
    posting.send(POST).await;
    until("both requests to be with the process", || {
        hanging.seen().len() == 2
    })
    .await;
    let mut services = hello(&[&good]);
    services[0].endpoints[0].process = "hello-7".parse().unwrap();
    lab.route(services).await;
    assert_eq!(waiting.reply().await.body, "good", "may be repeated");
    let reply = posting.reply().await;
    assert_eq!(reply.status, 502, "may not be repeated");
    assert_eq!(
        reply.body,
        "the process of service hello was lost before it answered\n"
    );
}

#[tokio::test]
async fn a_request_whose_only_process_is_lost_is_told_so_at_once() {
    let hanging = hanging().await;
    let lab = Lab::new(hello(&[&hanging])).await;
    let mut client = Client::connect(lab.address).await;
    client.send(GET).await;
    until("the request to be with the process", || {
        hanging.seen().len() == 1
    })
    .await;
    lab.route(hello(&[])).await;
    assert_eq!(client.reply().await.status, 502);
}

#[tokio::test]
async fn a_response_that_has_begun_outlives_its_process_in_the_table() {
    let go_on = Arc::new(Notify::new());
    let wait = go_on.clone();
    let origin = Origin::serving(move |mut peer| {
        let wait = wait.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbeg")
                .await;
            wait.notified().await;
            peer.send("un!").await;
        }
    })
    .await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = Client::connect(lab.address).await;
    client.send(GET).await;
    client.until(b"beg").await;
    lab.route(hello(&[])).await;
    go_on.notify_one();
    assert_eq!(client.exactly(3).await, b"un!");
}

#[tokio::test]
async fn a_draining_process_ends_what_it_has_and_gets_nothing_new() {
    let (go_on, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, tell) = (go_on.clone(), begun.clone());
    let draining = Origin::serving(move |mut peer| {
        let (wait, tell) = (wait.clone(), tell.clone());
        async move {
            while peer.request().await.is_some() {
                tell.notify_one();
                wait.notified().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
                    .await;
            }
        }
    })
    .await;
    let fresh = Origin::tagged("new").await;
    let lab = Lab::new(hello(&[&draining])).await;
    let mut client = Client::connect(lab.address).await;
    client.send(POST).await;
    soon("the request to begin", begun.notified()).await;
    let mut services = hello(&[&draining, &fresh]);
    services[0].endpoints[0].draining = true;
    lab.route(services).await;
    assert_eq!(lab.bodies(4).await.concat(), "newnewnewnew");
    go_on.notify_one();
    assert_eq!(client.reply().await.body, "old");
    assert_eq!(draining.seen().len(), 1);
}

#[tokio::test]
async fn a_draining_process_that_leaves_the_table_may_still_answer() {
    let (go_on, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, tell) = (go_on.clone(), begun.clone());
    let origin = Origin::serving(move |mut peer| {
        let (wait, tell) = (wait.clone(), tell.clone());
        async move {
            peer.request().await;
            tell.notify_one();
            wait.notified().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                .await;
        }
    })
    .await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = Client::connect(lab.address).await;
    client.send(POST).await;
    soon("the request to begin", begun.notified()).await;
    let mut services = hello(&[&origin]);
    services[0].endpoints[0].draining = true;
    lab.route(services).await;
    lab.route(hello(&[])).await;
    go_on.notify_one();
    assert_eq!(client.reply().await.body, "done");
}

#[tokio::test]
async fn bytes_after_a_response_answer_nobodys_request() {
    let origin = Origin::replying(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    )
    .await;
    let lab = Lab::new(hello(&[&origin])).await;
    for _ in 0..20 {
        assert_eq!(lab.get("/").await.body, "good");
    }
    assert_eq!(origin.seen().len(), 20);
}

/// Clients that ask for `/` until `stop`, over kept connections. Gives the number of their requests.
async fn load(lab: &Arc<Lab>, clients: usize, stop: &Arc<AtomicBool>) -> usize {
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let (address, stop) = (lab.address, stop.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut count = 0;
            while !stop.load(Relaxed) {
                // What may be repeated and what may not: neither may fail by a change of routes.
                client.send(if number % 2 == 0 { GET } else { POST }).await;
                let reply = client.reply().await;
                assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
                count += 1;
            }
            count
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_processes_come_drain_and_go_without_a_failed_request() {
    let origins = [
        Origin::tagged("ok").await,
        Origin::tagged("ok").await,
        Origin::tagged("ok").await,
    ];
    let (dead, _guard) = refusing_address();
    let all = {
        let mut services = hello(&origins.each_ref());
        services[0].endpoints.push(endpoint(3, dead));
        services
    };
    let lab = Arc::new(Lab::new(all.clone()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let loaded = tokio::spawn({
        let (lab, stop) = (lab.clone(), stop.clone());
        async move { load(&lab, 16, &stop).await }
    });
    for round in 0..30 {
        let leaving = round % 3;
        let mut draining = all.clone();
        draining[0].endpoints[leaving].draining = true;
        lab.route(draining.clone()).await;
        draining[0].endpoints.remove(leaving);
        lab.route(draining).await;
        lab.route(all.clone()).await;
    }
    stop.store(true, Relaxed);
    let count = loaded.await.unwrap();
    let seen: usize = origins.iter().map(|origin| origin.seen().len()).sum();
    assert!(count > 0);
    assert_eq!(seen, count, "each request reached a process once");
}
