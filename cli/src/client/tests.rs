use super::*;

#[test]
fn the_scheme_of_an_address_is_optional() {
    assert_eq!(
        parse_api("127.0.0.1:7070").unwrap().as_str(),
        "http://127.0.0.1:7070/"
    );
    assert_eq!(
        parse_api("https://ctl.example/").unwrap().as_str(),
        "https://ctl.example/"
    );
    for wrong in ["", "ftp://a", "http://", "http://a/?q=1"] {
        assert_eq!(parse_api(wrong).unwrap_err().exit_code(), 2, "{wrong}");
    }
}

#[test]
fn loopback_is_never_reached_through_a_proxy() {
    for (api, loopback) in [
        ("http://127.0.0.1:7070", true),
        ("http://[::1]:7070", true),
        ("http://localhost", true),
        ("http://10.0.0.1", false),
        ("http://localhost.example", false),
    ] {
        assert_eq!(is_loopback(&parse_api(api).unwrap()), loopback, "{api}");
    }
}

#[test]
fn an_answer_that_is_not_the_controllers_names_its_status() {
    let error = error_of_answer(StatusCode::BAD_GATEWAY, "<html>");
    assert_eq!(
        (error.exit_code(), error.to_string().contains("502")),
        (1, true)
    );
}
