//! The files of an image in containers of another, from the command line to the container.

use std::fs;

use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options};

use crate::exec::{Shell, TOOLS, with_a_shell};

#[test]
fn the_archive_beside_a_configuration_is_mounted_on_every_worker() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let shell = Shell(Cluster::start(&Options::default()));
    let archive = with_a_shell(&shell.0);
    let config = format!(
        "name = \"hello\"\nconcurrency = 3\nport = 8080\nmemory = \"64MiB\"\nimage = {archive:?}\n\
         [[mount]]\npath = \"/models\"\nimage = \"./models.tar\"\n"
    );
    fs::write(shell.0.path("service.toml"), config).unwrap();
    let file = shell.0.path("service.toml");
    let deploy = |weights: &str| {
        let layer = Layer::new(&[Entry::file("weights", weights)], Compression::Gzip).unwrap();
        let image = ImageSpec::new("models").layer(layer).build().unwrap();
        fs::write(shell.0.path("models.tar"), image.archive().unwrap()).unwrap();
        let output = shell
            .tucano(&["deploy", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let check = |expected: &str| {
        for process in shell.0.wait_for_healthy("hello", 3) {
            let script = "busybox cat /models/weights; busybox touch /models/x";
            let said = shell.exec(process.report.id.as_str(), script, b"");
            assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
            let refused = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(refused.contains("Read-only file system"), "{refused}");
        }
    };
    assert!(deploy("first").contains("revision 1 is healthy"));
    check("first");
    assert!(deploy("first").contains("revision 1 is unchanged"));
    assert!(deploy("second").contains("revision 2 is healthy"));
    check("second");
    let back = shell.tucano(&["rollback", "hello"]).output().unwrap();
    assert!(back.status.success(), "{back:?}");
    check("first");
}
