//! Compose files of the shapes that public projects have: taken, or refused by name.

use std::{fs, path::Path};

use serde_json::json;
use tucano_api::{service::ServiceConfig, settings::parse};

use super::*;

const PROFILES: [String; 0] = [];

struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        file.write("compose.yaml", text);
        file
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read_with(&self, profiles: &[String]) -> Result<Application, String> {
        let options = Options {
            profiles,
            variables: &|name| (name == "HOST_TAG").then(|| "7".to_owned()),
        };
        let path = self.directory.path().join("compose.yaml");
        let application = read(&path, &options).map_err(|error| self.plain(&error.to_string()))?;
        for service in &application.services {
            let text = serde_json::to_string(&service.config).unwrap();
            parse::<ServiceConfig>("x", &text).unwrap();
        }
        Ok(application)
    }

    fn plain(&self, text: &str) -> String {
        let directory = format!("{}/", self.directory.path().display());
        text.replace(&directory, "")
    }

    /// The notes, and each service as JSON.
    fn shown(&self) -> String {
        match self.read_with(&PROFILES) {
            Err(error) => format!("refused:\n{error}"),
            Ok(application) => {
                let notes = self.plain(&application.notes.join("\n"));
                let services = application.services.iter().map(|service| {
                    let json = serde_json::to_string_pretty(&service.config).unwrap();
                    let stage = match service.stage {
                        0 => String::new(),
                        stage => format!(" (stage {stage})"),
                    };
                    format!("{}{stage}: {json}", service.name)
                });
                let services: Vec<String> = services.collect();
                format!("{notes}\n{}", services.join("\n"))
            }
        }
    }
}

#[test]
fn a_web_application_with_worker_database_and_cache_is_taken() {
    let file = File::new(
        r#"
name: shop
x-app: &app
  image: registry.example/shop:${TAG:-1.2}
  environment: &env
    DATABASE_URL: postgres://shop@db/shop
    REDIS_URL: redis://cache:6379/0
    DEBUG: "false"
  env_file: [shop.env]
  depends_on:
    db: { condition: service_healthy }
    cache: { condition: service_started }
services:
  web:
    <<: *app
    command: gunicorn --bind 0.0.0.0:8000 "shop.wsgi"
    ports: ["8000:8000"]
    deploy:
      replicas: 2
      resources:
        limits: { cpus: "0.50", memory: 512M }
        reservations: { cpus: "0.25" }
      placement:
        preferences: [{ spread: node.labels.zone }]
    healthcheck:
      test: ["CMD-SHELL", "curl -f http://localhost:8000/up || exit 1"]
      interval: 10s
      timeout: 3s
      retries: 5
      start_period: 1m
    x-tucano: { hosts: [shop.example.org] }
  worker:
    <<: *app
    command: ["celery", "-A", "shop", "worker"]
    environment:
      <<: *env
      QUEUES: default,mail
    stop_grace_period: 1m30s
    stop_signal: SIGQUIT
    init: true
    restart: unless-stopped
  db:
    image: postgres:16
    user: "999:999"
    shm_size: 128m
    volumes: ["db-data:/var/lib/postgresql/data"]
    secrets: [db_password]
    environment:
      POSTGRES_PASSWORD_FILE: /run/secrets/db_password
    healthcheck: { test: ["CMD", "pg_isready"] }
  cache:
    image: redis:7
    read_only: true
    cap_drop: [ALL]
    tmpfs: ["/data:size=16m"]
    ulimits: { nofile: { soft: 20000, hard: 20000 } }
    sysctls: { net.core.somaxconn: 1024 }
volumes:
  db-data: { x-tucano: { size: 10g } }
secrets:
  db_password: { file: ./db_password.txt }
"#,
    );
    file.write("shop.env", "SECRET_KEY='a$b'\nDEBUG=true\n");
    insta::assert_snapshot!(file.shown());
}

#[test]
fn a_blog_with_a_database_is_taken_with_its_default_sizes() {
    let file = File::new(
        r#"
version: "3.9"
name: blog
services:
  wordpress:
    image: wordpress
    ports:
      - 8080:80
    environment:
      - WORDPRESS_DB_HOST=mysql_db
      - WORDPRESS_DB_PASSWORD=$$ecret
      - FROM_HERE
    volumes:
      - wp:/var/www/html
    links: [mysql_db]
  mysql_db:
    image: mysql:8
    command: --default-authentication-plugin=mysql_native_password
    volumes: ["mysql_data:/var/lib/mysql"]
    ports: ["127.0.0.1:3306:3306"]
volumes:
  wp:
  mysql_data: {}
"#,
    );
    insta::assert_snapshot!(file.shown());
}

#[test]
fn a_reverse_proxy_that_reads_the_socket_is_refused_with_all_reasons_at_once() {
    let file = File::new(
        r#"
services:
  traefik:
    image: traefik:v3
    network_mode: host
    privileged: true
    volumes:
      - /var/run/docker.sock:/var/run/docker.sock:ro
      - ./traefik.yml:/etc/traefik/traefik.yml
      - ./certs:/certs
    extra_hosts: ["host.docker.internal:host-gateway"]
    sysctls: { net.ipv4.ip_forward: 1 }
  app:
    build: .
    colour: blue
    depends_on:
      migrate: { condition: service_completed_successfully }
  migrate:
    image: app:1
    cap_add: [SYS_ADMIN]
    deploy: { replicas: 0, mode: global }
"#,
    );
    file.write("traefik.yml", "");
    insta::assert_snapshot!(file.shown());
}

#[test]
fn a_monitoring_stack_with_configs_and_one_process_on_each_worker_is_taken() {
    let file = File::new(
        r#"
name: monitoring
services:
  prometheus:
    image: prom/prometheus:v3
    user: nobody
    command:
      - --config.file=/etc/prometheus/prometheus.yml
    configs:
      - source: prometheus
        target: /etc/prometheus/prometheus.yml
        mode: 0440
    expose: [9090]
    networks: [inside]
  node-exporter:
    image: prom/node-exporter:v1
    deploy:
      mode: global
      placement:
        constraints: ["node.labels.os == linux", node.role == worker]
    volumes: ["/proc:/host/proc:ro"]
    ports:
      - { target: 9100, published: "9100", protocol: tcp, app_protocol: http }
    networks: [inside]
  grafana:
    image: grafana/grafana:${HOST_TAG}
    ports: ["3000:3000"]
    networks: { inside: {}, outside: {} }
    extra_hosts: { printer: 10.1.0.7 }
configs:
  prometheus: { file: ./prometheus.yml }
networks:
  inside: { internal: true }
  outside:
"#,
    );
    file.write("prometheus.yml", "global: {}\n");
    insta::assert_snapshot!(file.shown());
}

#[test]
fn the_output_of_docker_compose_config_is_taken() {
    let file = File::new(
        r#"
name: mail
services:
  smtp:
    cap_add:
      - CAP_NET_BIND_SERVICE
    command: null
    container_name: mail-smtp
    entrypoint: null
    environment:
      LOG: info
    hostname: mx.example.org
    image: mail/smtp:3
    logging: { driver: json-file }
    networks:
      default: null
    ports:
      - mode: ingress
        target: 25
        published: "25"
        protocol: tcp
      - mode: ingress
        target: 53
        published: "53"
        protocol: udp
    restart: always
    volumes:
      - type: volume
        source: queue
        target: /var/spool
        volume: {}
      - type: tmpfs
        target: /run
        tmpfs: { size: "67108864" }
    working_dir: /srv
networks:
  default:
    name: mail_default
volumes:
  queue:
    name: mail_queue
"#,
    );
    insta::assert_snapshot!(file.shown());
}

#[test]
fn an_application_whose_database_is_migrated_by_a_job_is_taken_in_stages() {
    let file = File::new(
        r#"
name: forum
services:
  web:
    image: example/forum:3
    command: bin/server
    ports: ["3000:3000"]
    depends_on:
      setup: { condition: service_completed_successfully, required: true }
      db: { condition: service_healthy, restart: true }
  sidekiq:
    image: example/forum:3
    command: bin/worker
    depends_on:
      setup: { condition: service_completed_successfully }
  setup:
    image: example/forum:3
    command: bin/migrate && bin/seed
    restart: on-failure:3
    environment: { DATABASE_HOST: db }
    depends_on:
      db: { condition: service_healthy }
      assets: { condition: service_completed_successfully }
  assets:
    image: example/assets:3
    restart: always
    healthcheck: { test: ["CMD", "true"] }
    expose: ["8080"]
  db:
    image: postgres:16
    volumes: ["db:/var/lib/postgresql/data"]
    healthcheck: { test: ["CMD", "pg_isready"] }
  report:
    image: example/forum:3
    deploy: { mode: replicated-job, replicas: 3 }
    restart: on-failure
volumes: { db: }
"#,
    );
    insta::assert_snapshot!(file.shown());
}

#[test]
fn what_a_job_cannot_have_is_refused_with_its_line() {
    let file = File::new(
        r#"
name: app
services:
  app: { image: "app:1", depends_on: { init: { condition: service_completed_successfully } } }
  init:
    image: app:1
    volumes: ["data:/data"]
    restart: sometimes
    deploy: { mode: global }
volumes: { data: }
"#,
    );
    insta::assert_snapshot!(file.shown());
}

#[test]
fn an_images_health_check_is_left_out_where_the_file_says_none() {
    for (check, expected) in [
        ("{ disable: true }", json!({ "image": false })),
        ("{ test: [NONE] }", json!({ "image": false })),
        (
            "{ test: [NONE], interval: 5s }",
            json!({ "interval": "5s", "image": false }),
        ),
        // The image's own, at other times.
        ("{ interval: 5s }", json!({ "interval": "5s" })),
        ("{ test: [CMD, x] }", json!({ "exec": ["x"] })),
    ] {
        let text = format!("services:\n  a: {{ image: 'a:1', healthcheck: {check} }}\n");
        let application = File::new(&text).read_with(&PROFILES).unwrap();
        assert_eq!(
            application.services[0].config["health"], expected,
            "{check}"
        );
    }
}

#[test]
fn profiles_choose_and_orders_hold() {
    let text = "
services:
  c: { image: 'a:1', depends_on: [b] }
  b: { image: 'a:1', depends_on: { a: { condition: service_healthy } } }
  a: { image: 'a:1' }
  debug: { image: 'a:1', profiles: [tools], ports: ['22:22', 2222:22] }
";
    let file = File::new(text);
    let names = |profiles: &[String]| {
        let application = file.read_with(profiles).unwrap();
        let names = application.services.iter().map(|it| it.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&PROFILES), ["a", "b", "c"]);
    assert_eq!(names(&["tools".to_owned()]), ["a", "b", "c", "debug"]);
    let all = file.read_with(&["*".to_owned()]).unwrap();
    let debug = all
        .services
        .iter()
        .find(|it| it.name.as_str() == "debug")
        .unwrap();
    // Not a number of base 60.
    assert_eq!(debug.config["ports"]["p22"]["port"], 22);
    let cycle = text.replace(
        "a: { image: 'a:1' }",
        "a: { image: 'a:1', depends_on: [c] }",
    );
    let error = File::new(&cycle).read_with(&PROFILES).unwrap_err();
    assert!(error.contains("a, b, c depend on each other"), "{error}");
}

#[test]
fn what_is_no_compose_file_is_refused_with_its_line() {
    for (text, part) in [
        ("", "services: there is none"),
        ("a: [1", "compose.yaml:"),
        (
            "services:\n  a:\n    image: x\n    image: y\n",
            "compose.yaml:4: image is here for the second time",
        ),
        (
            "services:\n  a: { image: 'a:1' }\n---\nb: 1\n",
            "a second document begins here",
        ),
        (
            "services:\n  a: { image: '${TAG:?set TAG}' }\n",
            "compose.yaml:2: services.a.image: the variable TAG is required and not set: set TAG",
        ),
        (
            "services:\n  a: { image: 'a:1', volumes: ['data:/x'] }\n",
            "the volume data is not among `volumes`",
        ),
        (
            "services:\n  a: { image: 'a:1', volumes: ['d:/x'] }\n  b: { image: 'a:1', volumes: ['d:/x'] }\nvolumes: { d: }\n",
            "the volume d is also one of",
        ),
        (
            "include: [x.yaml]\nservices:\n  a: { image: 'a:1' }\n",
            "compose.yaml:1: include: other files are not read",
        ),
        (
            "services:\n  a:\n    image: 'a:1'\n    cap_add: [SYS_ADMIN]\n    sysctls: { vm.max_map_count: 262144 }\n    user: 'a b'\n",
            "compose.yaml:2: services.a: sysctls.vm.max_map_count: cannot be set by a service",
        ),
        (
            "services:\n  a:\n    image: 'a:1'\n    cap_add: [SYS_ADMIN]\n    user: 'a b'\n",
            "compose.yaml:2: services.a: user: ",
        ),
        (
            "services:\n  a:\n    image: 'a:1'\n    cap_add: [SYS_ADMIN]\n",
            "SYS_ADMIN",
        ),
        (
            "services:\n  a: { image: 'a:1', ports: ['99999'] }\n",
            "\"99999\" is not a port",
        ),
        ("a: &a [*b]\nb: &b 1\n", "compose.yaml:"),
    ] {
        let error = File::new(text).read_with(&PROFILES).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    // A text that grows when its aliases are repeated.
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, before) in [
        ("b", "a"),
        ("c", "b"),
        ("d", "c"),
        ("e", "d"),
        ("f", "e"),
        ("g", "f"),
    ] {
        let aliases = vec![format!("*{before}"); 10].join(", ");
        bomb += &format!("{this}: &{this} [{aliases}]\n");
    }
    let error = File::new(&bomb).read_with(&PROFILES).unwrap_err();
    assert!(error.contains("more than 100000 values"), "{error}");
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(File::new(&deep).read_with(&PROFILES).is_err());
}

#[test]
fn a_directory_is_found_by_its_file() {
    let file = File::new("services: {}");
    assert_eq!(
        in_directory(file.directory.path())
            .unwrap()
            .file_name()
            .unwrap(),
        "compose.yaml"
    );
    assert!(is_compose(Path::new("x/stack.yml")) && !is_compose(Path::new("x.toml")));
}
