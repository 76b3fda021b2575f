//! Hooks: order, namespaces and failures.

use serde_json::{Value, json};
use tucano_testkit::{needs, tool};

use crate::harness::{Case, NEEDS};

/// A hook that checks its state and appends its name to a file of the host.
fn noting(case: &Case, name: &str) -> Value {
    let file = case.path("notes");
    let file = file.display();
    let script = format!(
        "read -r state; case $state in *'\"id\":\"{}\"'*) ;; *) exit 1;; esac; echo {name} >> {file}",
        case.id()
    );
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

#[test]
fn all_six_kinds_run_in_order() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    // This hook sees the container's root file system and writes there.
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat > /inside"] }]);
    case.config["hooks"] = json!({
        "prestart": noting(&case, "prestart"),
        "createRuntime": noting(&case, "createRuntime"),
        "createContainer": noting(&case, "createContainer"),
        "startContainer": inside,
        "poststart": noting(&case, "poststart"),
        "poststop": noting(&case, "poststop"),
    });
    let (created, said) = case.create();
    assert!(created, "{said}");
    assert_eq!(
        case.read("notes"),
        "prestart\ncreateRuntime\ncreateContainer\n"
    );
    assert!(!case.path("rootfs/inside").exists());
    case.must(&["start", case.id()]);
    assert!(case.read("rootfs/inside").contains(case.id()));
    case.wait_for_status("stopped");
    case.must(&["delete", case.id()]);
    let order = "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n";
    assert_eq!(case.read("notes"), order);
}

#[test]
fn hooks_receive_the_containers_status() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    let notes = case.path("notes");
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >> {}", notes.display())] }]);
    case.config["hooks"] =
        json!({ "prestart": hook, "createRuntime": hook, "poststart": hook, "poststop": hook });
    assert_eq!(case.run().status.code(), Some(0));
    let told = case.read("notes");
    let states = serde_json::Deserializer::from_str(&told).into_iter::<Value>();
    let statuses: Vec<_> = states
        .map(|state| state.unwrap()["status"].clone())
        .collect();
    assert_eq!(statuses, ["created", "creating", "running", "stopped"]);
}

#[test]
fn a_failing_hook_before_start_leaves_no_container() {
    if !needs(&NEEDS) {
        return;
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut case = Case::new("true");
        case.config["hooks"] = json!({ kind: [{ "path": "/bin/false" }] });
        let (created, said) = case.create();
        assert!(!created);
        assert!(said.contains(kind) && said.contains("/bin/false"), "{said}");
        assert!(case.is_gone());
    }
}

#[test]
fn a_failing_poststop_hook_is_a_warning() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    case.config["hooks"] = json!({ "poststop": [{ "path": "/bin/false" }] });
    let output = case.run();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("level=warning") && said.contains("poststop"),
        "{said}"
    );
    assert!(case.is_gone());
}

/// A hook that runs a script of the host's shell.
fn script(text: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-ec", text] }])
}

/// As with runc: the container's mounts are at the root's path in its mount namespace until the root is entered.
#[test]
fn hooks_see_and_change_the_containers_mounts_before_the_root_is_entered() {
    if !needs(&[NEEDS[0], NEEDS[1], tool("nsenter"), tool("mount")]) {
        return;
    }
    let mut case = Case::new("cat /tmp/one/file /tmp/two/file /tmp/three/file; ls /tmp/four");
    for name in ["one", "two", "three"] {
        std::fs::create_dir(case.path(name)).unwrap();
        std::fs::write(case.path(name).join("file"), format!("{name}\n")).unwrap();
    }
    let by_nsenter = |name: &str| {
        let source = case.path(name).display().to_string();
        script(&format!(
            "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')
             nsenter -m -t $pid sh -ec 'mkdir -p $1/rootfs/tmp/{name}; mount --bind {source} $1/rootfs/tmp/{name}' sh $PWD"
        ))
    };
    let own = format!(
        "ls rootfs/proc/self > /dev/null; mkdir -p rootfs/tmp/three
         mount --bind {} rootfs/tmp/three",
        case.path("three").display()
    );
    case.config["hooks"] = json!({
        "prestart": by_nsenter("one"),
        "createRuntime": by_nsenter("two"),
        "createContainer": script(&own),
    });
    // The source of a bind mount below an earlier mount of the root file system.
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    let (tmp, four) = (case.directory.path().join("rootfs/tmp"), "/tmp/four");
    mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}));
    mounts.push(json!({"destination": "/tmp/inner", "type": "tmpfs", "source": "tmpfs"}));
    mounts.push(json!({"destination": four, "type": "bind", "source": tmp.join("inner"), "options": ["rbind"]}));
    let output = case.run();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "one\ntwo\nthree\n", "{output:?}");
    // The host has none of it.
    assert!(!case.path("rootfs/tmp/one").exists());
}

/// It is a program of the image, which gets no more than the container's own.
#[test]
fn a_start_container_hook_runs_under_the_containers_restrictions() {
    if !needs(&NEEDS) {
        return;
    }
    for no_new_privileges in [true, false] {
        let mut case = Case::new("true");
        let text = "grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff):' /proc/self/status > /notes; env > /env; pwd >> /env";
        case.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        case.config["root"]["readonly"] = false.into();
        case.config["process"]["env"] = json!(["PATH=/bin", "SECRET=x"]);
        let path = "/bin/sh";
        case.config["hooks"] =
            json!({"startContainer": [{"path": path, "args": ["sh", "-c", text]}]});
        assert_eq!(case.run().status.code(), Some(0));
        let notes = case.read("rootfs/notes").replace('\t', " ");
        let expected = [
            "Seccomp: 2".to_owned(),
            format!("NoNewPrivs: {}", u8::from(no_new_privileges)),
            "CapBnd: 0000000000000000".to_owned(),
            "CapEff: 0000000000000000".to_owned(),
        ];
        for line in expected {
            assert!(notes.contains(&line), "{line}: {notes}");
        }
        assert!(
            !case.read("rootfs/env").contains("SECRET"),
            "{}",
            case.read("rootfs/env")
        );
    }
}

#[test]
fn a_hook_without_env_has_the_runtimes_and_never_the_processs() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    let text = format!("echo $MARK-$SECRET >> {}", case.path("notes").display());
    case.config["process"]["env"] = json!(["PATH=/bin", "SECRET=x"]);
    let mut with_none = script(&text);
    with_none[0]["env"] = json!([]);
    case.config["hooks"] = json!({
        "prestart": script(&text), "createRuntime": script(&text), "createContainer": script(&text),
        "poststart": with_none, "poststop": script(&text),
    });
    case.write();
    let output = case
        .program()
        .env("MARK", "mark")
        .args(["run", "--bundle"])
        .arg(case.path(""))
        .arg(case.id())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(case.read("notes"), "mark-\nmark-\nmark-\n-\nmark-\n");
}

/// The lifecycle goes on with the container's destruction and the poststop hooks (runtime.md, "Lifecycle").
#[test]
fn after_a_failing_hook_the_container_is_destroyed() {
    if !needs(&NEEDS) {
        return;
    }
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ] {
        let mut case = Case::new("sleep 1000");
        case.config["hooks"] = json!({
            kind: [{ "path": "/bin/false" }],
            "poststop": noting(&case, "poststop"),
        });
        symlink_false(&case);
        let (created, said) = case.create();
        if ["startContainer", "poststart"].contains(&kind) {
            assert!(created, "{said}");
            let said = case.must_fail(&["start", case.id()]);
            assert!(said.contains(kind), "{said}");
        } else {
            assert!(!created && said.contains(kind), "{said}");
        }
        assert_eq!(case.read("notes"), "poststop\n", "{kind}");
        assert!(case.is_gone(), "{kind}");
    }
}

fn symlink_false(case: &Case) {
    std::os::unix::fs::symlink("busybox", case.path("rootfs/bin/false")).unwrap();
}
