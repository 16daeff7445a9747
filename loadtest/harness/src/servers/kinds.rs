//! The kinds of servers that the harness can start: what each is started with. Each is data and a function that gives
//! a [`Program`]; what it is given is the least that is needed, the rest is as the server ships.
//!
//! All bind to loopback. Data lie in one directory a server, so that whoever made it can take it away.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sluice_model::Entropy;
use tokio::process::Command;

use super::{Program, Ready};

/// A JVM on a busy machine takes its time.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// Where one server lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// What messages and the log's file call it.
    pub name: String,
    /// Its data, and its working directory.
    pub data: PathBuf,
    /// The directory of logs.
    pub logs: PathBuf,
    /// Its Kafka port on 127.0.0.1.
    pub port: u16,
}

impl Place {
    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn program(&self, executable: &Path, args: Vec<OsString>, ready: Ready) -> Program {
        Program {
            name: self.name.clone(),
            executable: executable.to_owned(),
            args,
            environment: Vec::new(),
            // Settings of servers, and credentials of whoever runs this: not for those that are started here.
            hidden: ["SLUICE_", "AWS_", "KAFKA_", "JAVA_TOOL_OPTIONS"].map(str::to_owned).to_vec(),
            directory: self.data.clone(),
            log: self.logs.join(format!("{}.log", self.name)),
            ready,
            ready_limit: READY_LIMIT,
        }
    }
}

/// What Sluice's volumes are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// A file in its data directory.
    File,
    /// A block device.
    Block(PathBuf),
    /// Objects in the bucket.
    Object,
}

/// Sluice, at its defaults but for the volumes, with its bucket in the store or, without one, in a directory.
/// `http_port` is that of its metrics.
pub fn sluice(
    executable: &Path,
    place: &Place,
    volumes: &Volumes,
    store: Option<&Store>,
    http_port: u16,
) -> Program {
    let args = ["up", "--data"].map(OsString::from).into_iter();
    let args = args.chain([place.data.clone().into(), "--kafka".into(), place.address().into()]);
    let args = args.chain(["--http".into(), format!("127.0.0.1:{http_port}").into()]);
    let mut program = place.program(executable, args.collect(), Ready::Kafka(place.address()));
    let mut set = |name: &str, value: &str| {
        program.environment.push((format!("SLUICE_{name}"), value.to_owned()));
    };
    match volumes {
        Volumes::File => {}
        Volumes::Block(device) => {
            set("VOLUMES_KIND", "block");
            set("VOLUMES_DEVICES", &device.display().to_string());
        }
        Volumes::Object => set("VOLUMES_KIND", "object"),
    }
    if let Some(store) = store {
        // The name of the place: each server begins with an empty bucket of its own.
        set("BUCKET_URL", &format!("s3://{BUCKET}/{}", place.name));
        set("BUCKET_ENDPOINT", &store.endpoint());
        set("BUCKET_REGION", REGION);
        set("BUCKET_ALLOW_HTTP", "true");
        // Over loopback nobody puts other bytes under a checksum, and with TLS bodies are not signed either.
        set("BUCKET_SIGN_BODIES", "never");
        program.environment.extend(store.credentials());
    }
    program
}

/// Tansu, with its storage in the store's bucket.
pub fn tansu(executable: &Path, place: &Place, store: &Store) -> Program {
    let url = format!("tcp://{}", place.address());
    let storage = format!("s3://{BUCKET}/");
    let args = ["broker", "--listener-url", &url, "--advertised-listener-url", &url];
    let args = args.iter().copied().chain(["--storage-engine", &storage]).map(OsString::from);
    let mut program = place.program(executable, args.collect(), Ready::Kafka(place.address()));
    program.environment.extend(store.credentials());
    program.environment.extend(
        [
            ("AWS_ENDPOINT", store.endpoint()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    program
}

/// What Kafka's `bin/kafka-server-start.sh` and `bin/kafka-run-class.sh` give the JVM, the heap of 1 GiB among it.
const JVM: [&str; 8] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

const LOG4J: &str = "\
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = out
";

/// Apache Kafka as one process in KRaft mode, with the values of the `server.properties` that it ships for that, and
/// `settings` over them. `jars` is the directory of its jars. It is formatted here, before it is started.
///
/// # Errors
/// Words for the user: files cannot be written, or Kafka's own tool has failed.
pub async fn kafka(
    jars: &Path,
    place: &Place,
    controller_port: u16,
    settings: &[(&str, &str)],
    entropy: &dyn Entropy,
) -> Result<Program, String> {
    let properties = place.data.join("server.properties");
    let log4j = place.data.join("log4j2.properties");
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://{address}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\nlog.dirs={data}/log\n\
         num.network.threads=3\nnum.io.threads=8\n\
         socket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n",
        address = place.address(),
        data = place.data.display(),
    );
    for (key, value) in settings {
        text.push_str(&format!("{key}={value}\n"));
    }
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(&place.data)
        .map_err(|error| format!("cannot make {}: {error}", place.data.display()))?;
    write(&properties, &text)?;
    write(&log4j, LOG4J)?;
    let class_path = format!("{}/*", jars.display());
    let logging = format!("-Dlog4j2.configurationFile={}", log4j.display());
    format_kafka(&class_path, &logging, &properties, &cluster_id(entropy)).await?;
    let args = JVM.iter().map(OsString::from);
    let args = args.chain([logging.into(), "-cp".into(), class_path.into(), "kafka.Kafka".into()]);
    let args = args.chain([properties.into()]).collect();
    Ok(place.program(Path::new("java"), args, Ready::Kafka(place.address())))
}

async fn format_kafka(
    class_path: &str,
    logging: &str,
    properties: &Path,
    cluster_id: &str,
) -> Result<(), String> {
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", logging, "-cp", class_path]);
    command.args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"]).arg(properties);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot run java: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Err(format!("Kafka's storage tool has failed: {}", said.trim()))
}

/// A cluster id of Kafka's own shape: 16 bytes in URL-safe base64, which does not begin with a dash.
fn cluster_id(entropy: &dyn Entropy) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(entropy.random_16());
    // 22 digits of 6 bits hold 132: the last one has four zeros. The first is a letter.
    let digits = (0..22).map(|place| {
        let digit = if place < 21 { bits >> (122 - 6 * place) } else { bits << 4 };
        let digit = DIGITS[(digit & 63) as usize];
        char::from(if place == 0 { b'A' + digit % 26 } else { digit })
    });
    digits.collect()
}

/// The bucket that servers started here use.
const BUCKET: &str = "loadtest";
const REGION: &str = "us-east-1";

/// An S3 server, Versity's gateway to a directory: its port and its keys, which are made anew each time. Of those that can be
/// had here it takes the least of the processors that it shares with what is measured: an eighth of what SeaweedFS takes for
/// a GiB, because it can do without MD5.
#[derive(Clone, Debug)]
pub struct Store {
    port: u16,
    access_key: String,
    secret_key: String,
}

impl Store {
    /// A store of the executable `versitygw` that keeps all in `place.data`, with an empty bucket there, and how it is started.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(
        executable: &Path,
        place: &Place,
        entropy: &dyn Entropy,
    ) -> std::io::Result<(Self, Program)> {
        let access_key = format!("AK{:016X}", entropy.random_u64());
        let secret_key = format!("{:032x}", u128::from_be_bytes(entropy.random_16()));
        let store = Self { port: place.port, access_key, secret_key };
        let data = place.data.join("store");
        // A bucket is a directory.
        std::fs::create_dir_all(data.join(BUCKET))?;
        let address = place.address();
        let args = ["--quiet", "--keep-alive", "--region", REGION, "--port", &address];
        let args = args.into_iter().chain(["posix", "--data-integrity-etag"]).map(OsString::from);
        let args = args.chain([data.into()]).collect();
        let ready = Ready::Http(format!("{}/", store.endpoint()));
        let mut program = place.program(executable, args, ready);
        program.hidden.extend(["VGW_", "ROOT_"].map(str::to_owned));
        program.environment = vec![
            ("ROOT_ACCESS_KEY".to_owned(), store.access_key.clone()),
            ("ROOT_SECRET_KEY".to_owned(), store.secret_key.clone()),
        ];
        Ok((store, program))
    }

    /// The URL of its S3 interface.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn credentials(&self) -> [(String, String); 2] {
        [("AWS_ACCESS_KEY_ID", &self.access_key), ("AWS_SECRET_ACCESS_KEY", &self.secret_key)]
            .map(|(name, value)| (name.to_owned(), value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(u8);

    impl Entropy for Bytes {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    fn place(directory: &Path) -> Place {
        let (data, logs) = (directory.join("data"), directory.join("logs"));
        Place { name: "s".to_owned(), data, logs, port: 9 }
    }

    #[test]
    fn cluster_ids_have_the_shape_that_kafka_wants() {
        for byte in [0, 0x7f, 0xfb, 0xff] {
            let id = cluster_id(&Bytes(byte));
            assert_eq!(id.len(), 22, "{id}");
            let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            assert!(id.chars().all(known) && id.starts_with(|c: char| c.is_ascii_uppercase()));
            // 128 bits in 22 digits leave four of the last one, which a decoder wants to be 0.
            assert!(id.ends_with(['A', 'Q', 'g', 'w']), "{id}");
        }
        assert_ne!(cluster_id(&Bytes(1)), cluster_id(&Bytes(2)));
    }

    #[test]
    fn a_server_on_the_store_knows_its_keys_and_a_bucket_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = place(directory.path());
        let made = Store::new(Path::new("versitygw"), &place, &Bytes(7)).expect("made");
        let (store, program) = made;
        assert!(program.args.contains(&"127.0.0.1:9".into()), "{:?}", program.args);
        assert!(place.data.join("store/loadtest").is_dir());
        for (_, secret) in store.credentials() {
            assert!(secret.len() > 16, "{secret}");
            assert!(program.environment.iter().any(|(_, value)| *value == secret));
            // Anybody on this machine can read arguments.
            let told = program.args.iter().any(|arg| arg.to_string_lossy().contains(&secret));
            assert!(!told, "{:?}", program.args);
        }
        let device = Volumes::Block(PathBuf::from("/dev/loop9"));
        let sluice = sluice(Path::new("sluice"), &place, &device, Some(&store), 8);
        let set = |name: &str| {
            let found = sluice.environment.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        assert_eq!(set("SLUICE_VOLUMES_KIND"), "block");
        assert_eq!(set("SLUICE_VOLUMES_DEVICES"), "/dev/loop9");
        assert_eq!(set("SLUICE_BUCKET_URL"), "s3://loadtest/s");
        assert_eq!(set("SLUICE_BUCKET_ENDPOINT"), "http://127.0.0.1:9");
        assert!(!set("AWS_SECRET_ACCESS_KEY").is_empty());
    }
}
