//! Invalid input gets a clear error and leaves no trace.

use std::io::{Read, Write};

use reqwest::multipart::{Form, Part};

use crate::{
    ctl::{Answer, Ctl, config},
    image,
};

/// Sends a deploy that must be refused, and checks that it leaves no trace.
async fn refused(ctl: &mut Ctl, config: &str, archive: Vec<u8>) -> Answer {
    let answer = ctl.deploy(config, archive).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    no_trace(ctl).await;
    answer
}

async fn no_trace(ctl: &mut Ctl) {
    assert_eq!(
        ctl.get("/v1/services").await.expect(200),
        serde_json::json!([])
    );
    ctl.eventually("an empty store", async |ctl| {
        let ingest = std::fs::read_dir(ctl.path("data/images/ingest"))
            .into_iter()
            .flatten()
            .count();
        (ctl.blobs().is_empty() && ingest == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_is_explained() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    for (text, message) in [
        (
            "name = \"hello\"\nconcurency = 1\nport = 1",
            "hello.toml:2:1: unknown key \"concurency\": did you mean \"concurrency\"?",
        ),
        (
            "name = \"hello\"\nconcurrency = 0\nport = 1",
            "hello.toml:2:1: concurrency: 0 processes cannot be kept alive, and a missing key counts as 0: write 1 to 10000, or `everywhere = true` in `placement`, or remove the service",
        ),
        (
            "name = \"hello\"\nconcurrency = 1\nport = 0",
            "hello.toml:3:1: port: 0 is not a port: write the one the program listens on",
        ),
        (
            "name = \"hello\"\nconcurrency = 1\nport = 1\n[[file]]\npath = \"/etc/../x\"\ncontent = \"\"",
            "hello.toml:5:1: file[0].path: \"/etc/../x\" is not the path of a file: write an absolute one without `.`, `..` and \
             doubled or final slashes",
        ),
        (
            "name = \"hello\"\nconcurrency = 1\nport = 1\n[[file]]\npath = \"/x\"\nfrom = \"/etc/shadow\"",
            "hello.toml: file[0].from: the controller reads no files of yours: send the text as `content`, or deploy with the \
             command line",
        ),
    ] {
        let answer = refused(&mut ctl, text, image::archive("one")).await;
        assert_eq!(answer.refused(400, "invalid_config"), message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_after_the_image_leaves_no_image() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let form = Form::new()
        .part("image", Part::bytes(image::archive("one")))
        .part("config", Part::text("name = 1"));
    ctl.send_form("", form).await.refused(400, "invalid_config");
    no_trace(&mut ctl).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_image_is_explained() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let whole = image::archive("one");
    let truncated = whole[..whole.len() / 2].to_vec();
    let answer = refused(&mut ctl, &image::config(1, ""), truncated).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (400, "archive_truncated"),
        "{answer:?}"
    );

    let mut layout = image::spec("one").build().unwrap();
    let blob = layout
        .files
        .iter_mut()
        .find(|file| file.0.starts_with("blobs/"))
        .unwrap();
    blob.1[0] ^= 1;
    let answer = refused(&mut ctl, &image::config(1, ""), layout.archive().unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (400, "digest_mismatch"),
        "{answer:?}"
    );

    let elsewhere = image::spec("one")
        .architecture("s390x")
        .build()
        .unwrap()
        .archive()
        .unwrap();
    let answer = refused(&mut ctl, &image::config(1, ""), elsewhere).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (422, "wrong_architecture"),
        "{answer:?}"
    );

    let answer = refused(&mut ctl, &image::config(1, ""), b"no archive".to_vec()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_must_be_known_and_complete() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let text = || Part::text(image::config(1, ""));
    let unknown = Form::new()
        .part("config", text())
        .part("imgae", Part::text("x"));
    let error = ctl
        .send_form("", unknown)
        .await
        .refused(400, "unknown_part");
    assert!(
        error.contains("\"imgae\"") && error.contains("\"image\""),
        "{error}"
    );
    let twice = Form::new().part("config", text()).part("config", text());
    ctl.send_form("", twice).await.refused(400, "part_twice");
    let none = Form::new().part("image", Part::bytes(image::archive("one")));
    ctl.send_form("", none).await.refused(400, "invalid_config");
    let alone = Form::new().part("config", text());
    let error = ctl.send_form("", alone).await.refused(400, "no_image");
    assert!(error.contains("-F image=@hello.tar"), "{error}");
    no_trace(&mut ctl).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_is_not_stored_is_refused() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let text = format!(
        "name = \"a\"\nconcurrency = 1\nport = 1\nimage = \"sha256:{}\"",
        "0".repeat(64)
    );
    let post = ctl.http().post(ctl.url("/v1/services")).body(text);
    ctl.send(post).await.refused(422, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_cannot_have_one_host() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let first = image::config(1, "hosts = [\"www.example\"]");
    ctl.deploy(&first, image::archive("one")).await.expect(201);
    let second = first.replace("\"hello\"", "\"other\"");
    let error = ctl
        .deploy(&second, image::archive("one"))
        .await
        .refused(409, "host_taken");
    assert!(
        error.contains("www.example") && error.contains("hello"),
        "{error}"
    );
    let apart = format!("{second}\npath_prefix = \"/other\"");
    ctl.deploy(&apart, image::archive("one")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_over_a_limit_is_refused() {
    let limits = "[limits]\nimage_bytes = \"32KiB\"\nconfig_bytes = 200\nservices = 1\nreport_bytes = \"1KiB\"";
    let mut ctl = Ctl::start(&config(1, "", limits)).await;
    let error = ctl
        .deploy(&image::config(1, ""), image::large_archive(200_000))
        .await
        .refused(413, "too_large");
    assert_eq!(
        error,
        "the image is larger than 32.0 KiB: limits.image_bytes in ctl.toml sets this limit"
    );
    let long = image::config(1, &format!("# {}", "x".repeat(200)));
    ctl.deploy(&long, image::archive("one"))
        .await
        .refused(413, "too_large");
    let plain = ctl.http().post(ctl.url("/v1/services")).body(long);
    ctl.send(plain).await.refused(413, "too_large");
    let report = ctl
        .http()
        .post(ctl.url("/v1/reports"))
        .body(vec![b' '; 2000]);
    ctl.send(report).await.refused(413, "too_large");
    no_trace(&mut ctl).await;
    ctl.deploy(&image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    let second = image::config(1, "").replace("\"hello\"", "\"other\"");
    ctl.deploy(&second, image::archive("one"))
        .await
        .refused(409, "too_many_services");
}

/// Starts an upload and sends half of the image.
fn begin_upload(ctl: &Ctl) -> std::net::TcpStream {
    let archive = image::archive("one");
    let head = format!(
        "POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n\
         --b\r\nContent-Disposition: form-data; name=\"config\"\r\n\r\n{}\r\n--b\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n",
        archive.len() + 10_000,
        image::config(1, "")
    );
    let mut stream = std::net::TcpStream::connect(ctl.address()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&archive[..archive.len() / 2]).unwrap();
    stream
}

fn answer(mut stream: std::net::TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_off_leaves_no_trace() {
    let mut ctl = Ctl::start(&config(1, "", "[limits]\nuploads = 1")).await;
    let mut upload = begin_upload(&ctl);
    ctl.eventually("the upload's place", async |ctl| {
        let answer = ctl
            .deploy(&image::config(1, ""), image::archive("one"))
            .await;
        if answer.status == 201 {
            // It may have arrived first and taken the slot: retry both.
            ctl.delete("/v1/services/hello").await.expect(200);
            upload = begin_upload(ctl);
            return None;
        }
        Some(answer.refused(429, "too_many_uploads"))
    })
    .await;
    drop(upload);
    no_trace(&mut ctl).await;
    ctl.eventually("the upload's place again", async |ctl| {
        let answer = ctl
            .deploy(&image::config(1, ""), image::archive("one"))
            .await;
        (answer.status == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_is_aborted() {
    let mut ctl = Ctl::start(&config(1, "", "[limits]\nbody_idle = \"200ms\"")).await;
    let upload = begin_upload(&ctl);
    let answer = tokio::task::spawn_blocking(move || answer(upload))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.contains("nothing was received for 200ms"),
        "{answer}"
    );
    no_trace(&mut ctl).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_an_endless_header_is_refused() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let mut stream = std::net::TcpStream::connect(ctl.address()).unwrap();
    let sent = tokio::task::spawn_blocking(move || {
        let head = "POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000000\r\n\r\n--b\r\nX: ";
        stream.write_all(head.as_bytes()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        // 300 MiB are far above the bound.
        (0..300).find(|_| stream.write_all(&piece).is_err())
    });
    assert!(sent.await.unwrap().is_some());
    ctl.get("/healthz").await.expect(200);
}
