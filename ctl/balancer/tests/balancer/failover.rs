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
    Client, Origin, TestBed, ask, endpoint, hello, refusing_address, service, silent_address, soon,
    wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\r\nbody";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\r\nbody";

/// Reads one request and closes the connection without a response.
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
async fn a_process_that_refuses_connections_is_invisible_to_clients() {
    let good = Origin::tagged("good").await;
    let (refusing, _guard) = refusing_address();
    let endpoints = vec![endpoint(0, refusing), endpoint(1, good.address)];
    let bed = TestBed::new(vec![service("hello", endpoints)]).await;
    for _ in 0..10 {
        for request in [GET, POST, PUT] {
            let reply = ask(bed.address, request).await;
            assert_eq!((reply.status, reply.body.as_str()), (200, "good"));
        }
    }
    assert_eq!(good.seen().len(), 30, "each request once");
}

#[tokio::test]
async fn more_dead_processes_than_tries_do_not_fail_a_request() {
    let good = Origin::tagged("good").await;
    let refusing: Vec<_> = (0..8).map(|_| refusing_address()).collect();
    let mut endpoints: Vec<_> = refusing
        .iter()
        .enumerate()
        .map(|(n, (address, _))| endpoint(n, *address))
        .collect();
    endpoints.push(endpoint(8, good.address));
    let bed = TestBed::new(vec![service("hello", endpoints)]).await;
    assert_eq!(bed.get("/").await.body, "good");
}

#[tokio::test]
async fn a_process_that_does_not_accept_in_time_is_skipped() {
    let good = Origin::tagged("good").await;
    let (silent, _guard) = silent_address().await;
    let endpoints = vec![endpoint(0, silent), endpoint(1, good.address)];
    let limits = Limits {
        connect_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let bed = TestBed::with_limits(vec![service("hello", endpoints)], limits).await;
    assert_eq!(bed.bodies(4).await.concat(), "goodgoodgoodgood");
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
    // Trying the second process next would use up the time for connecting.
    let limits = Limits {
        connect_total_timeout: Duration::from_secs(20),
        ..Limits::default()
    };
    let bed = TestBed::with_limits(vec![service("hello", endpoints)], limits).await;
    assert_eq!(bed.get("/").await.body, "other node");
    let ejections = tucano_balancer::metrics::render(&bed.balancer).unwrap();
    assert!(
        ejections.contains("ejections_total{service=\"hello\"} 1"),
        "{ejections}"
    );
}

#[tokio::test]
async fn a_recovered_process_gets_requests_again() {
    let good = Origin::tagged("a").await;
    let (address, socket) = refusing_address();
    let endpoints = vec![endpoint(0, address), endpoint(1, good.address)];
    let limits = Limits {
        eject_min: Duration::from_millis(20),
        eject_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let bed = TestBed::with_limits(vec![service("hello", endpoints)], limits).await;
    assert_eq!(bed.bodies(2).await.concat(), "aa");
    let _back = Origin::on(socket.listen(16).unwrap(), |mut peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
                .await;
        }
    });
    soon("a request to the process that is back", async {
        while bed.get("/").await.body != "b" {}
    })
    .await;
}

#[tokio::test]
async fn if_all_processes_are_ejected_all_are_tried() {
    let (address, socket) = refusing_address();
    let bed = TestBed::new(vec![service("hello", vec![endpoint(0, address)])]).await;
    assert_eq!(bed.get("/").await.status, 502);
    let _back = Origin::on(socket.listen(16).unwrap(), |mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
            .await;
    });
    assert_eq!(
        bed.get("/").await.body,
        "b",
        "although its pause is not over"
    );
}

#[tokio::test]
async fn idempotent_requests_are_retried_after_a_broken_connection() {
    let (breaking, good) = (breaking().await, Origin::tagged("good").await);
    let bed = TestBed::new(hello(&[&breaking, &good])).await;
    let reply = bed.get("/").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "good"));
    assert_eq!(breaking.seen().len(), 1);
}

#[tokio::test]
async fn other_requests_are_502_after_a_broken_connection() {
    let (breaking, good) = (breaking().await, Origin::tagged("good").await);
    let bed = TestBed::new(hello(&[&breaking, &good])).await;
    let reply = ask(bed.address, POST).await;
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.body,
        "the process of service hello closed the connection before it answered\n"
    );
    bed.get("/").await; // goes to the good one: the rotation continues
    let reply = ask(bed.address, PUT).await;
    assert_eq!(reply.status, 502, "its body was sent already");
    assert_eq!(good.seen().len(), 1);
}

#[tokio::test]
async fn the_number_of_tries_is_limited() {
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
    let bed = TestBed::with_limits(hello(&origins.each_ref()), limits).await;
    assert_eq!(bed.get("/").await.status, 502);
    let sent: usize = origins.iter().map(|origin| origin.seen().len()).sum();
    assert_eq!(sent, 2);
}

#[tokio::test]
async fn a_pooled_connection_closed_by_the_process_is_replaced() {
    // Closes every connection after one response, without `Connection: close`.
    let origin = Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            .await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for _ in 0..20 {
        assert_eq!(bed.get("/").await.status, 200);
    }
    assert_eq!(origin.seen().len(), 20);
}

#[tokio::test]
async fn an_invalid_response_is_502_and_not_retried() {
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
        let bed = TestBed::new(hello(&[&origin, &other])).await;
        let reply = bed.get("/").await;
        let shown = String::from_utf8_lossy(garbage);
        assert_eq!(reply.status, 502, "{shown}");
        assert_eq!(
            reply.body, "the process of service hello sent an invalid response\n",
            "{shown}"
        );
        assert_eq!(origin.seen().len(), 1, "{shown}");
    }
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn a_response_head_over_the_limits_is_502() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(600 * 1024));
    for head in [many, long] {
        let origin = Origin::replying(head).await;
        let bed = TestBed::new(hello(&[&origin])).await;
        assert_eq!(bed.get("/").await.status, 502);
    }
}

#[tokio::test]
async fn no_response_in_time_is_504() {
    let hanging = hanging().await;
    let limits = Limits {
        response_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let bed = TestBed::with_limits(hello(&[&hanging]), limits).await;
    let reply = bed.get("/").await;
    assert_eq!(reply.status, 504);
    assert_eq!(
        reply.body,
        "the process of service hello did not answer in time\n"
    );
}

#[tokio::test]
async fn the_response_timeout_pauses_while_the_client_sends() {
    let origin = Origin::tagged("good").await;
    let limits = Limits {
        response_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let bed = TestBed::with_limits(hello(&[&origin]), limits).await;
    let mut client = Client::connect(bed.address).await;
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
async fn requests_do_not_wait_for_a_lost_process() {
    let (hanging, good) = (hanging().await, Origin::tagged("good").await);
    let bed = TestBed::new(hello(&[&hanging])).await;
    let mut waiting = Client::connect(bed.address).await;
    waiting.send(GET).await;
    let mut posting = Client::connect(bed.address).await;
    posting.send(POST).await;
    wait_until("both requests to be with the process", || {
        hanging.seen().len() == 2
    })
    .await;
    let mut services = hello(&[&good]);
    services[0].endpoints[0].process = "hello-7".parse().unwrap();
    bed.route(services).await;
    assert_eq!(waiting.reply().await.body, "good", "may be repeated");
    let reply = posting.reply().await;
    assert_eq!(reply.status, 502, "may not be repeated");
    assert_eq!(
        reply.body,
        "the process of service hello was lost before it answered\n"
    );
}

#[tokio::test]
async fn a_request_whose_only_process_is_lost_is_502() {
    let hanging = hanging().await;
    let bed = TestBed::new(hello(&[&hanging])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    wait_until("the request to be with the process", || {
        hanging.seen().len() == 1
    })
    .await;
    bed.route(hello(&[])).await;
    assert_eq!(client.reply().await.status, 502);
}

#[tokio::test]
async fn a_response_in_progress_survives_the_removal_of_its_process() {
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
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    client.read_until(b"beg").await;
    bed.route(hello(&[])).await;
    go_on.notify_one();
    assert_eq!(client.exactly(3).await, b"un!");
}

#[tokio::test]
async fn a_draining_process_finishes_its_requests_and_gets_no_new_ones() {
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
    let bed = TestBed::new(hello(&[&draining])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(POST).await;
    soon("the request to begin", begun.notified()).await;
    let mut services = hello(&[&draining, &fresh]);
    services[0].endpoints[0].draining = true;
    bed.route(services).await;
    assert_eq!(bed.bodies(4).await.concat(), "newnewnewnew");
    go_on.notify_one();
    assert_eq!(client.reply().await.body, "old");
    assert_eq!(draining.seen().len(), 1);
}

#[tokio::test]
async fn a_draining_process_that_leaves_the_table_still_answers() {
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
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(POST).await;
    soon("the request to begin", begun.notified()).await;
    let mut services = hello(&[&origin]);
    services[0].endpoints[0].draining = true;
    bed.route(services).await;
    bed.route(hello(&[])).await;
    go_on.notify_one();
    assert_eq!(client.reply().await.body, "done");
}

#[tokio::test]
async fn bytes_after_a_response_are_not_another_response() {
    let origin = Origin::replying(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    )
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for _ in 0..20 {
        assert_eq!(bed.get("/").await.body, "good");
    }
    assert_eq!(origin.seen().len(), 20);
}

/// Clients that request `/` until `stop`, with keep-alive. Returns the number of requests.
async fn load(bed: &Arc<TestBed>, clients: usize, stop: &Arc<AtomicBool>) -> usize {
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let (address, stop) = (bed.address, stop.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut count = 0;
            while !stop.load(Relaxed) {
                // Neither idempotent nor other requests may fail because routes change.
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
async fn rolling_updates_under_load_fail_no_request() {
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
    let bed = Arc::new(TestBed::new(all.clone()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let loaded = tokio::spawn({
        let (bed, stop) = (bed.clone(), stop.clone());
        async move { load(&bed, 16, &stop).await }
    });
    for round in 0..30 {
        let leaving = round % 3;
        let mut draining = all.clone();
        draining[0].endpoints[leaving].draining = true;
        bed.route(draining.clone()).await;
        draining[0].endpoints.remove(leaving);
        bed.route(draining).await;
        bed.route(all.clone()).await;
    }
    stop.store(true, Relaxed);
    let count = loaded.await.unwrap();
    let seen: usize = origins.iter().map(|origin| origin.seen().len()).sum();
    assert!(count > 0);
    assert_eq!(seen, count, "each request reached a process once");
}

#[tokio::test]
async fn a_response_head_over_the_limits_names_them() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(33 * 1024));
    for head in [many, long] {
        let origin = Origin::replying(head).await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let reply = bed.get("/").await;
        assert_eq!(reply.status, 502);
        for limit in ["32.0 KiB (--head-bytes)", "100 headers (--max-headers)"] {
            assert!(reply.body.contains(limit), "{}", reply.body);
        }
    }
    let fits = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\na: {}\r\n\r\n",
        "b".repeat(31 * 1024)
    );
    let origin = Origin::replying(fits).await;
    let bed = TestBed::new(hello(&[&origin])).await;
    assert_eq!(bed.get("/").await.status, 200);
}

#[tokio::test]
async fn a_space_before_the_colon_of_a_response_header_is_removed() {
    let origin =
        Origin::replying("HTTP/1.1 200 OK\r\nX-Old : 1\r\nContent-Length: 2\r\n\r\nok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let reply = bed.get("/").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    assert!(
        reply.head.to_ascii_lowercase().contains("x-old: 1\r\n"),
        "{}",
        reply.head
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_cannot_be_retried_avoid_connections_about_to_close() {
    // Closes every connection a moment after its response, without `Connection: close`.
    for pause_ms in [0, 1, 5] {
        let origin = Origin::serving(move |mut peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
                .await;
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        })
        .await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let mut client = Client::connect(bed.address).await;
        for number in 0..100 {
            client.send(if number % 3 == 0 { GET } else { POST }).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, 200, "{pause_ms} ms, {number}: {}", reply.body);
        }
    }
}
