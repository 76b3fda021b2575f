//! A controller for a test.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{
    Method, StatusCode,
    multipart::{Form, Part},
};
use serde_json::Value;
use tempfile::TempDir;

/// Generous timeout for loaded machines.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A running controller; killed when dropped.
pub(crate) struct Ctl {
    directory: TempDir,
    child: Option<Child>,
    address: SocketAddr,
    http: reqwest::Client,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    /// The error's code, or an empty string.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The error's message, or an empty string.
    pub(crate) fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    /// Asserts the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// Asserts the status and the error's code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> String {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{}",
            self.body
        );
        self.error().to_owned()
    }
}

/// A configuration with workers `w1`… at 127.0.0.11…; `top` precedes its tables, `tables` is among them.
pub(crate) fn config(workers: usize, top: &str, tables: &str) -> String {
    let mut text = format!(
        "data_dir = \"data\"\n{top}\n[api]\nlisten = \"stdin\"\n[balancer]\nspawn = false\n{tables}\n\
         [[topology]]\nkind = \"ctl\"\nip = \"127.0.0.1\"\n"
    );
    for n in 1..=workers {
        text.push_str(&format!(
            "[[topology]]\nkind = \"worker\"\nip = \"127.0.0.{}\"\nname = \"w{n}\"\n",
            10 + n
        ));
    }
    text
}

/// What arrives until the other end closes.
pub(crate) fn read_all(stream: &mut std::net::TcpStream) -> String {
    use std::io::Read;
    let mut answer = Vec::new();
    // A reset counts as the end.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The program with a configuration file.
pub(crate) fn program(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tucano_ctld"));
    command.arg("--config").arg(config);
    command
}

/// Runs the program with a configuration until it exits by itself.
pub(crate) fn run(text: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl.toml");
    fs::write(&path, text).unwrap();
    program(&path)
        .args(arguments)
        .current_dir(&directory)
        .output()
        .unwrap()
}

impl Ctl {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(config: &str) -> Self {
        let mut ctl = Self::prepare(config);
        ctl.start_again().await;
        ctl
    }

    /// A controller that is not started yet.
    pub(crate) fn prepare(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ctl.toml"), config).unwrap();
        // reqwest needs a provider even for plain HTTP.
        tucano_tls::install_provider();
        Self {
            directory,
            child: None,
            address: ([127, 0, 0, 1], 0).into(),
            // One connection per request: the controller may close a pooled one just as it is reused, by eviction or
            // shutdown.
            http: reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
        }
    }

    pub(crate) async fn start_again(&mut self) {
        let command = program(&self.path("ctl.toml"));
        self.start_as(command).await;
    }

    /// Starts it by a command that executes the program.
    pub(crate) async fn start_as(&mut self, command: Command) {
        self.start_on("127.0.0.1:0", command).await;
    }

    /// Starts it with a listener on this address; requests use loopback.
    pub(crate) async fn start_on(&mut self, address: &str, mut command: Command) {
        let listener = TcpListener::bind(address).unwrap();
        self.address.set_port(listener.local_addr().unwrap().port());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = command
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.eventually("the controller's answer", async |ctl| {
            if let Some(status) = ctl.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("it ended ({status}): {}", ctl.log());
            }
            let answer = ctl.http.get(ctl.url("/healthz")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Stops it by a signal and returns its exit status.
    pub(crate) async fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap())
            .await
            .unwrap()
    }

    /// Stops it, and the balancer that it has started, if it still runs.
    pub(crate) fn terminate(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(
                Pid::from_raw(child.id().try_into().unwrap()),
                Signal::SIGTERM,
            )
            .ok();
            child.wait().ok();
        }
    }

    pub(crate) async fn kill_9(&mut self) {
        assert_eq!(self.end(Signal::SIGKILL).await.signal(), Some(9));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.path("ctl.toml"), text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    pub(crate) async fn request(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(self.http.request(method, self.url(path)).json(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.http.delete(self.url(path))).await
    }

    /// A connection that has sent these bytes.
    pub(crate) fn connect(&self, bytes: &[u8]) -> std::net::TcpStream {
        use std::io::Write;
        let url = reqwest::Url::parse(&self.url("/")).unwrap();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", url.port().unwrap())).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // A refusal may come before all is sent.
        stream.write_all(bytes).ok();
        stream
    }

    /// The answer to these bytes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        read_all(&mut self.connect(bytes))
    }

    /// Like `curl -F config=@hello.toml -F image=@hello.tar`.
    pub(crate) async fn deploy(&self, config: &str, image: Vec<u8>) -> Answer {
        self.deploy_and("", config, image).await
    }

    pub(crate) async fn deploy_and(&self, query: &str, config: &str, image: Vec<u8>) -> Answer {
        let form = Form::new()
            .part(
                "config",
                Part::text(config.to_owned()).file_name("hello.toml"),
            )
            .part("image", Part::bytes(image).file_name("hello.tar"));
        self.send_form(query, form).await
    }

    pub(crate) async fn send_form(&self, query: &str, form: Form) -> Answer {
        let url = self.url(&format!("/v1/services{query}"));
        self.send(self.http.post(url).multipart(form)).await
    }

    /// Polls until `look` returns a value.
    pub(crate) async fn eventually<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            if let Some(seen) = look(self).await {
                return seen;
            }
            let now = tokio::time::Instant::now();
            assert!(
                now < deadline,
                "waited in vain for {what}; log:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Names of the blobs in the image store.
    pub(crate) fn blobs(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("data/images/blobs/sha256"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Ctl {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
