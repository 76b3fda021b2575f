use super::*;

#[test]
fn addresses_other_than_loopback_are_refused() {
    let dev = |balancer: &str| Dev {
        workers: 1,
        balancer: balancer.parse().unwrap(),
        data: None,
        deploy: Vec::new(),
        quiet: false,
    };
    let open = "0.0.0.0:8080";
    let api = check(open.parse().unwrap(), &dev("127.0.0.1:1")).unwrap_err();
    assert!(
        api.exit_code() == 2 && api.to_string().starts_with("--api"),
        "{api}"
    );
    let balancer = check("127.0.0.1:1".parse().unwrap(), &dev(open)).unwrap_err();
    assert!(balancer.to_string().starts_with("--balancer"), "{balancer}");
}

#[test]
fn a_port_in_use_is_reported_with_the_flag_that_changes_it() {
    let taken = listen("127.0.0.1:0".parse().unwrap(), "--api").unwrap();
    let error = listen(taken.local_addr().unwrap(), "--balancer").unwrap_err();
    assert!(
        error.to_string().contains("choose another with --balancer"),
        "{error}"
    );
}
