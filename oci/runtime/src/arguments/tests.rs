use super::*;

#[test]
fn command_lines_of_known_callers_are_parsed() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
    for line in [
        "tucano_oci --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /c x",
        "tucano_oci --root=/r --debug start x",
        "tucano_oci --rootless=false kill --all x 9",
        "tucano_oci kill x KILL",
        "tucano_oci exec --pid-file /p --process /j --detach --console-socket /c x",
        "tucano_oci exec -t -u 1:2 -e A=1 -e B=2 --cwd /x x sh -c -- exit",
        "tucano_oci ps --format json x",
        "tucano_oci events --stats x",
        "tucano_oci events --interval 1s x",
        "tucano_oci update --resources - x",
        "tucano_oci update --memory 64m --memory-swap -1 --cpu-quota -1 --pids-limit 5 --cpu-share 2 x",
        "tucano_oci delete --force x",
        "tucano_oci run -d --no-new-keyring --preserve-fds 2 -b /b x",
        "tucano_oci list -q --format json",
        "tucano_oci exec --cgroup sub --cgroup cpu:/x --pidfd-socket /s x sh",
        "tucano_oci create --pidfd-socket /s -b /b x",
        "tucano_oci spec --rootless -b /b",
        "tucano_oci kill x 0",
    ] {
        let parsed = Arguments::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}");
    }
}

#[test]
fn times_have_units() {
    assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
    assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
    assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
    for bad in ["", "s", "0s", "-1s", "nan", "1e99h"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}
