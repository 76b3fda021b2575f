use super::*;
use crate::{
    service::Effect,
    settings::{Validate, parse},
};

fn config(more: &str) -> ServiceConfig {
    let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
    parse("a", &text).unwrap()
}

fn request(text: &str) -> Result<DeviceRequest, String> {
    text.parse()
}

#[test]
fn a_number_is_how_many_and_anything_else_is_a_name() {
    let kind: DeviceKind = "nvidia.com/gpu".parse().unwrap();
    let any = DeviceRequest::Any {
        kind: kind.clone(),
        count: 2,
    };
    assert_eq!(request("nvidia.com/gpu=2"), Ok(any));
    for name in ["all", "GPU-8f2c", "0:1", "card0", "0000.65"] {
        let text = format!("nvidia.com/gpu={name}");
        let named = request(&text).unwrap();
        assert!(matches!(&named, DeviceRequest::Named { name: it, .. } if it.as_str() == name));
        assert_eq!(named.to_string(), text);
    }
    assert_eq!(
        request("/dev/bus/usb/001"),
        Ok(DeviceRequest::Node("/dev/bus/usb/001".to_owned()))
    );
}

#[test]
fn what_is_no_device_is_refused_and_says_what_to_write() {
    for (text, words) in [
        ("nvidia.com/gpu=0", "a number says how many, from 1 to 64"),
        ("nvidia.com/gpu=65", "a number says how many, from 1 to 64"),
        ("nvidia.com/gpu", "write for example \"nvidia.com/gpu=1\""),
        ("nvidia.com/gpu=", "device name"),
        ("nvidia.com/gpu=-1", "device name"),
        ("gpu=1", "device kind"),
        ("nvidia.com/gpu/x=1", "device kind"),
        ("/etc/passwd", "is not a device node"),
        ("/dev/", "is not a device node"),
        ("/dev/../etc/passwd", "is not a device node"),
        ("/dev/fuse:/dev/x:rwm", "is not a device node"),
    ] {
        let refused = request(text).unwrap_err();
        assert!(refused.contains(words), "{text}: {refused}");
    }
}

#[test]
fn devices_are_bounded_and_asked_for_once() {
    let nodes: Vec<String> = (0..65)
        .map(|number| format!("\"/dev/n{number}\""))
        .collect();
    let many = nodes.join(", ");
    for list in [
        "\"a.b/c=1\", \"a.b/c=2\"",
        "\"a.b/c=x\", \"a.b/c=x\"",
        "\"/dev/fuse\", \"/dev/fuse\"",
        &many,
    ] {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\ndevices = [{list}]");
        let refused = parse::<ServiceConfig>("a", &text).unwrap_err();
        assert!(refused.to_string().contains("devices"), "{refused}");
    }
    let several = config("devices = [\"a.b/c=1\", \"a.b/c=x\", \"a.b/d=1\", \"/dev/fuse\"]");
    assert!(several.validate().is_ok() && several.has_own_devices());
    assert_eq!(several.device_nodes().collect::<Vec<_>>(), ["/dev/fuse"]);
}

#[test]
fn only_agents_that_know_devices_get_a_process_that_has_some() {
    let with = config("devices = [\"/dev/fuse\"]");
    assert!(!with.has_own_devices());
    assert_eq!(with.agent_keys().collect::<Vec<_>>(), ["devices"]);
    assert_eq!(with.for_agents().devices, with.devices);
    assert_eq!(config("").change_to(&with), Effect::Process);
    assert_eq!(with.relaxed(), ["device=/dev/fuse"]);
    let text = serde_json::to_string(&with).unwrap();
    assert_eq!(serde_json::from_str::<ServiceConfig>(&text).unwrap(), with);
    assert!(
        !serde_json::to_string(&config(""))
            .unwrap()
            .contains("devices")
    );
}

#[test]
fn runs_of_a_service_have_no_devices_and_those_of_a_job_have() {
    let service = config("devices = [\"a.b/c=1\", \"/dev/fuse\"]");
    let of_service = service.for_run(Some(&["x".to_owned()]));
    assert_eq!(of_service.devices, service.devices[1..]);
    let text = "name = \"j\"\nkind = \"job\"\ndevices = [\"a.b/c=1\"]";
    let job: ServiceConfig = parse("j", text).unwrap();
    assert_eq!(job.for_run(None).devices, job.devices);
}
