use crate::support::{Origin, TestBed, ask, endpoint, get, hello, refusing_address, service};

#[tokio::test]
async fn processes_alternate() {
    let (a, b, c) = (
        Origin::tagged("a").await,
        Origin::tagged("b").await,
        Origin::tagged("c").await,
    );
    let bed = TestBed::new(hello(&[&a, &b, &c])).await;
    let bodies = bed.bodies(9).await;
    assert_eq!(bodies.concat(), "abcabcabc");
}

#[tokio::test]
async fn weights_are_exact_across_table_changes() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let mut services = hello(&[&a, &b]);
    services[0].endpoints[0].weight = 3;
    let bed = TestBed::new(services.clone()).await;
    let mut bodies = bed.bodies(6).await;
    bed.route(services).await;
    bodies.extend(bed.bodies(6).await);
    assert_eq!(bodies.concat(), "aabaaabaaaba");
}

#[tokio::test]
async fn hosts_match_regardless_of_case_port_and_final_dot() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let mut second = service("second", vec![endpoint(1, b.address)]);
    second.hosts.push("second.example".to_owned());
    let mut services = hello(&[&a]);
    services.push(second);
    let bed = TestBed::new(services).await;
    for (host, body) in [
        ("hello.localhost", "a"),
        ("HELLO.Localhost:8080", "a"),
        ("second.localhost.", "b"),
        ("second.example.:80", "b"),
    ] {
        assert_eq!(get(bed.address, host, "/").await.body, body, "{host}");
    }
    let absolute = "GET http://second.example/x HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    assert_eq!(ask(bed.address, absolute).await.body, "b");
    assert!(
        b.seen()
            .last()
            .unwrap()
            .starts_with("GET /x HTTP/1.1\r\nhost: second.example\r\n")
    );
}

#[tokio::test]
async fn the_longest_path_prefix_on_a_segment_boundary_wins() {
    let (root, api, v2) = (
        Origin::tagged("root").await,
        Origin::tagged("api").await,
        Origin::tagged("v2").await,
    );
    let on = |name: &str, origin: &Origin, prefix: Option<&str>| {
        let mut service = service(name, vec![endpoint(0, origin.address)]);
        service.hosts = vec!["site.localhost".to_owned()];
        service.path_prefix = prefix.map(str::to_owned);
        service
    };
    let services = vec![
        on("api", &api, Some("/api/")),
        on("root", &root, None),
        on("v2", &v2, Some("/api/v2")),
    ];
    let bed = TestBed::new(services).await;
    for (path, body) in [
        ("/", "root"),
        ("/apis", "root"),
        ("/api", "api"),
        ("/api?x=/api/v2", "api"),
        ("/api/v1", "api"),
        ("/api/v2", "v2"),
        ("/api/v2/x", "v2"),
        ("/api/v22", "api"),
        ("/API/v2", "root"),
    ] {
        assert_eq!(
            get(bed.address, "site.localhost", path).await.body,
            body,
            "{path}"
        );
    }
}

#[tokio::test]
async fn unknown_hosts_and_paths_are_404_with_a_reason() {
    let mut services = hello(&[]);
    services[0].path_prefix = Some("/only".to_owned());
    let bed = TestBed::new(services).await;
    for (host, path) in [("nobody.localhost", "/"), ("hello.localhost", "/other")] {
        let reply = get(bed.address, host, path).await;
        assert_eq!(reply.status, 404);
        assert_eq!(
            reply.body,
            format!("no service for host {host} and this path\n")
        );
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
    }
}

#[tokio::test]
async fn a_service_without_processes_is_503_with_retry_after() {
    let a = Origin::tagged("a").await;
    let bed = TestBed::new(hello(&[])).await;
    let mut draining = hello(&[&a]);
    draining[0].endpoints[0].draining = true;
    for services in [hello(&[]), draining] {
        bed.route(services).await;
        let reply = bed.get("/").await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.body, "service hello has no healthy process\n");
    }
}

#[tokio::test]
async fn responses_name_the_service_and_nothing_internal() {
    let (address, _guard) = refusing_address();
    let bed = TestBed::new(vec![service("hello", vec![endpoint(0, address)])]).await;
    let reply = bed.get("/").await;
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.body,
        "no process of service hello accepts connections\n"
    );
    assert!(!reply.head.contains("127.0.0.1"), "{}", reply.head);
}

#[tokio::test]
async fn one_connection_may_reach_several_services() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let mut services = hello(&[&a]);
    services.push(service("second", vec![endpoint(1, b.address)]));
    let bed = TestBed::new(services).await;
    let mut client = crate::support::Client::connect(bed.address).await;
    for (host, body) in [
        ("hello", "a"),
        ("second", "b"),
        ("third", ""),
        ("hello", "a"),
    ] {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {host}.localhost\r\n\r\n"))
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.status == 200, !body.is_empty());
        assert!(reply.body.starts_with(body));
    }
}

#[tokio::test]
async fn a_path_chooses_the_service_that_it_means() {
    let (root, admin) = (Origin::tagged("root").await, Origin::tagged("admin").await);
    let on = |name: &str, origin: &Origin, prefix: Option<&str>| {
        let mut service = service(name, vec![endpoint(0, origin.address)]);
        service.hosts = vec!["site.localhost".to_owned()];
        service.path_prefix = prefix.map(str::to_owned);
        service
    };
    let services = vec![on("admin", &admin, Some("/admin")), on("root", &root, None)];
    let bed = TestBed::new(services).await;
    for (path, body) in [
        ("/x/../admin", "admin"),
        ("//admin", "admin"),
        ("/%61dmin", "admin"),
        ("/./admin/x?y=/../", "admin"),
        ("/%2e%2e/admin", "admin"),
        ("/admin/../x", "root"),
        ("/admin/%2e./x", "root"),
        ("/admin%2fx", "root"),
        ("/x?/../admin", "root"),
    ] {
        let reply = get(bed.address, "site.localhost", path).await;
        assert_eq!(reply.body, body, "{path}");
        let origin = if body == "root" { &root } else { &admin };
        let line = format!("GET {path} HTTP/1.1\r\n");
        assert!(
            origin.seen().pop().unwrap().starts_with(&line),
            "the path is forwarded unchanged"
        );
    }
}

#[tokio::test]
async fn an_http_1_0_request_may_name_its_host_in_the_target_alone() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = crate::support::Client::connect(bed.address).await;
    client
        .send("GET http://hello.localhost/x HTTP/1.0\r\n\r\n")
        .await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n"), "{all}");
    assert!(origin.seen()[0].starts_with("GET /x HTTP/1.1\r\nhost: hello.localhost\r\n"));
}
