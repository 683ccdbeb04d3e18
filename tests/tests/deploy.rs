//! What lies in `deploy/` fits the program: deadlines, ports, paths, variables and users are what the program has by default,
//! the configuration in the manifest is one that it takes, and the unit is one that systemd takes.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kalends::config::settings::{SETTINGS, Setting};
use kalends::config::{Request, load};
use kalends::exit::Exit;
use kalends::supervisor::STOP_MARGIN_MS;
use kalends_tests::process::kalends_binary;
use saphyr::{LoadableYamlNode as _, Yaml};

/// The port in README, alerts and examples.
const PORT: u16 = 7878;
/// Nobody's number on any system.
const USER: i64 = 65_532;

fn path(file: &str) -> PathBuf {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    deploy.join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

fn setting(name: &str) -> &'static Setting {
    let found = SETTINGS.iter().find(|setting| setting.name() == name);
    found.unwrap_or_else(|| panic!("{name} is a setting"))
}

fn default_ms(name: &str) -> u64 {
    setting(name).default.unwrap().parse().unwrap()
}

/// The seconds that whoever stops the process must give it.
fn stop_s() -> u64 {
    (default_ms("worker.shutdown_ms") + STOP_MARGIN_MS).div_ceil(1_000)
}

// -- systemd -------------------------------------------------------------------------------------------------------

/// Sections, and of each the keys with all their values.
fn unit(text: &str) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut sections: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
            continue;
        }
        let (key, value) = line.split_once('=').expect(line);
        let keys = sections.entry(section.clone()).or_default();
        keys.entry(key.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    sections
}

#[test]
fn the_unit_gives_the_process_the_time_and_the_folders_that_it_takes() {
    let text = read("systemd/kalends.service");
    let unit = unit(&text);
    let service = &unit["Service"];
    let one = |key: &str| {
        let values = service
            .get(key)
            .unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!(values.len(), 1, "{key}");
        values[0].as_str()
    };
    assert_eq!(one("Type"), "notify");
    assert_eq!(one("TimeoutStopSec"), format!("{}s", stop_s()));
    assert_eq!(
        one("RestartPreventExitStatus"),
        (Exit::BadInput as u8).to_string()
    );
    assert_eq!(one("ExecReload"), "/bin/kill -HUP $MAINPID");
    // The folder that it writes to is the one that systemd makes for it, and the only one that it may.
    let state = format!("/var/lib/{}", one("StateDirectory"));
    let start = "/usr/local/bin/kalends run --config /etc/kalends/kalends.toml --data-dir";
    assert_eq!(one("ExecStart"), format!("{start} {state}"));
    // systemd gives a service every folder but the one of its configuration (systemd.exec, "ConfigurationDirectory="). A user that
    // is made at the start could not enter one that others cannot, so there is a fixed one, whose group has the folder.
    for key in ["DynamicUser", "ConfigurationDirectory"] {
        assert!(!service.contains_key(key), "{key}");
    }
    let group = one("Group");
    assert_eq!(one("User"), group);
    for step in [
        format!("useradd --system --user-group --no-create-home --home-dir {state} "),
        format!("install -d -g {group} -m 750 /etc/kalends\n"),
        format!("install -g {group} -m 640 kalends.toml users.csv /etc/kalends/\n"),
    ] {
        assert!(text.contains(&format!("#   {step}")), "{step}");
    }
    for (key, wanted) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"),
    ] {
        assert_eq!(one(key), wanted, "{key}");
    }
    // systemd's own judgement, where systemd is at hand: no line of complaint, and a service that is well shut in.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kalends.service");
    let binary = kalends_binary().display().to_string();
    let text = text.replace("/usr/local/bin/kalends", &binary);
    std::fs::write(&file, text).unwrap();
    let Ok(verified) = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&file)
        .output()
    else {
        println!("left out: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    let judged = Command::new("systemd-analyze")
        // In tenths: 0 is best, 100 worst.
        .args(["security", "--offline=true", "--threshold=20"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}");
}

// -- Docker --------------------------------------------------------------------------------------------------------

#[test]
fn the_image_holds_nothing_else_and_its_variables_are_settings() {
    let text = read("docker/Dockerfile").replace("\\\n", " ");
    let (_, last) = text.rsplit_once("FROM ").unwrap();
    let mut lines = last.lines();
    assert_eq!(lines.next(), Some("scratch"));
    let of = |instruction: &str| {
        let found = last
            .lines()
            .filter_map(|line| line.strip_prefix(instruction));
        found.map(str::trim).collect::<Vec<_>>()
    };
    assert_eq!(of("USER "), [format!("{USER}:{USER}")]);
    assert_eq!(of("EXPOSE "), [PORT.to_string()]);
    assert_eq!(of("ENTRYPOINT "), [r#"["/usr/local/bin/kalends"]"#]);
    assert_eq!(of("CMD "), [r#"["run"]"#]);
    assert_eq!(of("COPY "), ["--from=build /image /"]);
    assert_eq!(of("STOPSIGNAL "), ["SIGTERM"]);
    let known: BTreeSet<String> = SETTINGS.iter().map(Setting::environment_name).collect();
    let variables = of("ENV ").join(" ");
    let variables: BTreeMap<&str, &str> = variables
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .collect();
    for name in variables.keys() {
        assert!(*name == "KALENDS_CONFIG" || known.contains(*name), "{name}");
    }
    let data_dir = variables["KALENDS_STORE_DATA_DIR"];
    assert_eq!(of("VOLUME "), [format!("[\"{data_dir}\"]")]);
    // It is built by a compiler that is new enough, and stops in time by the command that it tells of.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let (_, rust) = manifest.split_once("rust-version = \"").unwrap();
    let (rust, _) = rust.split_once('"').unwrap();
    assert!(text.contains(&format!("FROM rust:{rust}-")), "rust {rust}");
    assert!(text.contains(&format!("docker stop --time {}", stop_s())));
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("kalends:{version}")));
    // What the last stage takes over is made by a script that is there and can be run.
    let collect = std::fs::metadata(path("docker/collect")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(collect.permissions().mode() & 0o111, 0o111);
    assert!(text.contains("RUN deploy/docker/collect /usr/local/bin/kalends /image"));
}

/// What the script lays out is all that the program needs: it starts there with nothing else in sight, if this test may
/// change what it sees.
#[test]
fn what_is_collected_for_the_image_is_enough_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("image");
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        println!("left out: this machine has no certificates to lay out");
        return;
    }
    let laid_out = Command::new(path("docker/collect"))
        .arg(kalends_binary())
        .arg(&root)
        .status()
        .unwrap();
    assert!(laid_out.success());
    let may = Command::new("unshare")
        .args(["--map-root-user", "true"])
        .status();
    if !may.is_ok_and(|status| status.success()) {
        println!("left out: no folder can be made the root here");
        return;
    }
    let shown = Command::new("unshare")
        .args(["--map-root-user", "chroot"])
        .arg(&root)
        .args(["/usr/local/bin/kalends", "config", "show", "--defaults"])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("shutdown_ms"));
}

// -- Kubernetes ----------------------------------------------------------------------------------------------------

fn manifests() -> String {
    read("kubernetes/kalends.yaml")
}

fn of_kind<'yaml>(documents: &'yaml [Yaml<'yaml>], kind: &str) -> &'yaml Yaml<'yaml> {
    let found = documents
        .iter()
        .find(|one| one["kind"].as_str() == Some(kind));
    found.unwrap_or_else(|| panic!("there is a {kind}"))
}

/// A key file with a key of its own, as Google gives one.
fn service_account() -> String {
    let made = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .output()
        .expect("there is an openssl command");
    assert!(made.status.success(), "{made:?}");
    let key = String::from_utf8(made.stdout).unwrap();
    serde_json::json!({ "client_email": "a@example.com", "private_key": key }).to_string()
}

/// The variables and files that the pod gets stand for what the configuration names; and that configuration is one that
/// the program takes.
#[test]
fn the_configuration_in_the_manifest_is_one_that_the_program_takes() {
    let text = manifests();
    let documents = Yaml::load_from_str(&text).unwrap();
    let pod = &of_kind(&documents, "Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mounts: BTreeMap<&str, &str> = container["volumeMounts"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|mount| {
            assert_eq!(mount["readOnly"].as_bool(), Some(true));
            (
                mount["name"].as_str().unwrap(),
                mount["mountPath"].as_str().unwrap(),
            )
        })
        .collect();
    let arguments: Vec<&str> = container["args"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect();
    let file = format!("{}/kalends.toml", mounts["config"]);
    assert_eq!(arguments, ["run", "--config", &file]);

    // The same files in a folder of this test, at the end of the same paths.
    let folder = tempfile::tempdir().unwrap();
    let toml = of_kind(&documents, "ConfigMap")["data"]["kalends.toml"]
        .as_str()
        .unwrap();
    let secret = folder.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    let here = toml.replace(mounts["secret"], secret.to_str().unwrap());
    let files: BTreeSet<&str> = pod["volumes"]
        .as_sequence()
        .unwrap()
        .iter()
        .filter_map(|volume| volume.as_mapping_get("secret")?["items"].as_sequence())
        .flatten()
        .map(|item| item["path"].as_str().unwrap())
        .collect();
    for file in &files {
        assert!(
            toml.contains(&format!("{}/{file}", mounts["secret"])),
            "{file}"
        );
        let content = match *file {
            "users.csv" => "id\nada@example.com\n".to_owned(),
            "service-account.json" => service_account(),
            _ => "sixteen-letters-or-more".to_owned(),
        };
        std::fs::write(secret.join(file), content).unwrap();
    }
    std::fs::write(folder.path().join("kalends.toml"), here).unwrap();
    let mut environment = BTreeMap::new();
    for variable in container["env"].as_sequence().unwrap() {
        let value = match variable["name"].as_str().unwrap() {
            "KALENDS_REDIS_URL" => "rediss://redis.example.com:6379/0",
            _ => "kalends-7c9d-abcde",
        };
        let name = variable["name"].as_str().unwrap().to_owned();
        environment.insert(name, value.to_owned());
    }
    let request = Request {
        file: Some("kalends.toml".to_owned()),
        folder: folder.path().to_owned(),
        ..Request::default()
    };
    let config = load(&request, &environment).unwrap().config;
    assert_eq!(config.worker.name, "kalends-7c9d-abcde");
    assert_eq!(config.users.len(), 1);

    // The time that the pod gets, and the port that it serves.
    let grace_s = pod["terminationGracePeriodSeconds"].as_integer().unwrap();
    let needed_ms = config.worker.shutdown_ms + STOP_MARGIN_MS;
    assert_eq!(u64::try_from(grace_s).unwrap() * 1_000, needed_ms);
    assert_eq!(u64::try_from(grace_s).unwrap(), stop_s());
    let listen = config.http.listen.unwrap();
    assert!(!listen.ip().is_loopback() && config.http.token.is_some());
    assert_eq!(listen.port(), PORT);
    let port = &container["ports"][0];
    assert_eq!(port["containerPort"].as_integer(), Some(i64::from(PORT)));
    let service = &of_kind(&documents, "Service")["spec"]["ports"][0];
    assert_eq!(service["port"].as_integer(), Some(i64::from(PORT)));
    assert_eq!(service["targetPort"].as_str(), port["name"].as_str());
    for (probe, path) in [
        ("livenessProbe", "/healthz"),
        ("startupProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["path"].as_str(), Some(path), "{probe}");
        assert_eq!(asked["port"].as_str(), port["name"].as_str(), "{probe}");
    }
}

#[test]
fn the_pods_are_many_alike_and_may_do_nothing_but_their_work() {
    let text = manifests();
    let documents = Yaml::load_from_str(&text).unwrap();
    let deployment = &of_kind(&documents, "Deployment")["spec"];
    assert!(deployment["replicas"].as_integer().unwrap() > 1);
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    let image = format!("kalends:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"].as_str(), Some(image.as_str()));
    assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true));
    assert_eq!(pod["securityContext"]["runAsUser"].as_integer(), Some(USER));
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(security["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(security["capabilities"]["drop"][0].as_str(), Some("ALL"));
    // Everything is found by the same label.
    let label = |labels: &Yaml<'_>| labels["app.kubernetes.io/name"].as_str().map(str::to_owned);
    let wanted = label(&deployment["template"]["metadata"]["labels"]);
    assert!(wanted.is_some());
    assert_eq!(label(&deployment["selector"]["matchLabels"]), wanted);
    assert_eq!(
        label(&of_kind(&documents, "Service")["spec"]["selector"]),
        wanted
    );
    let budget = &of_kind(&documents, "PodDisruptionBudget")["spec"];
    assert_eq!(label(&budget["selector"]["matchLabels"]), wanted);
}

#[test]
fn prometheus_finds_the_pods_by_their_label_and_shows_a_token() {
    let scrape = read("prometheus/scrape.yml");
    let scrape = Yaml::load_from_str(&scrape).unwrap();
    let job = &scrape[0]["scrape_configs"][0];
    let name = job["job_name"].as_str().unwrap();
    let rules = read("prometheus/kalends.rules.yml");
    assert!(rules.contains(&format!("up{{job=\"{name}\"}}")), "{name}");
    assert_eq!(job["metrics_path"].as_str(), Some("/metrics"));
    assert!(job["authorization"]["credentials_file"].as_str().is_some());

    let text = manifests();
    let documents = Yaml::load_from_str(&text).unwrap();
    let pod = &of_kind(&documents, "Deployment")["spec"]["template"];
    let (kept, port) = (&job["relabel_configs"][0], &job["relabel_configs"][1]);
    assert_eq!(
        kept["source_labels"][0].as_str(),
        Some("__meta_kubernetes_pod_label_app_kubernetes_io_name")
    );
    assert_eq!(
        kept["regex"].as_str(),
        pod["metadata"]["labels"]["app.kubernetes.io/name"].as_str()
    );
    let ports = &pod["spec"]["containers"][0]["ports"];
    let listens = ports[0]["containerPort"].as_integer().unwrap();
    let asked = format!("$1:{listens}");
    assert_eq!(port["replacement"].as_str(), Some(asked.as_str()));
}
