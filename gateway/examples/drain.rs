//! A consumer that costs next to nothing: reads a topic from its beginning with one Fetch at a time, as
//! clients do, checks each batch's checksum, and stops after so many records. For benches that ask what
//! the server can give, not what a client's language takes.
//!
//!     cargo run --release -p sluice-gateway --example drain -- 127.0.0.1:9092 TOPIC PARTITIONS RECORDS
//!
//! Prints seconds, records and bytes.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

use std::collections::HashMap;
use std::process::ExitCode;

use bytes::BytesMut;
use sluice_wire::batch::BatchView;
use sluice_wire::header::{RequestHeader, ResponseHeader};
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::fetch_response::FetchResponse;
use sluice_wire::{ApiKey, Decoder, Encoder, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The last version with topics by name.
const VERSION: i16 = 12;
/// Kafka's defaults: fetch.max.bytes, max.partition.fetch.bytes, fetch.max.wait.ms.
const MAX_BYTES: i32 = 50 << 20;
const MAX_PARTITION_BYTES: i32 = 1 << 20;
const MAX_WAIT_MS: i32 = 500;

type Failure = Box<dyn std::error::Error>;

struct Drain {
    socket: TcpStream,
    topic: String,
    /// Next offset by partition.
    next: HashMap<i32, i64>,
    records: i64,
    bytes: usize,
}

impl Drain {
    async fn fetch(&mut self) -> Result<FetchResponse, Failure> {
        let partitions = self.next.iter().map(|(&partition, &fetch_offset)| FetchPartition {
            partition,
            fetch_offset,
            partition_max_bytes: MAX_PARTITION_BYTES,
            ..Default::default()
        });
        let topic = FetchTopic {
            topic: self.topic.as_str().into(),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: MAX_WAIT_MS,
            min_bytes: 1,
            max_bytes: MAX_BYTES,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let mut encoder = Encoder::framed();
        let header = RequestHeader {
            request_api_key: ApiKey::Fetch.code(),
            request_api_version: VERSION,
            correlation_id: 1,
            client_id: Some("drain".into()),
        };
        header.encode(&mut encoder, ApiKey::Fetch.request_header_version(VERSION))?;
        request.encode(&mut encoder, VERSION)?;
        self.socket.write_all(&encoder.into_frame()?.to_bytes()).await?;
        let len = usize::try_from(self.socket.read_i32().await?)?;
        let mut frame = BytesMut::with_capacity(len);
        while frame.len() < len {
            if (&mut self.socket).take((len - frame.len()) as u64).read_buf(&mut frame).await? == 0
            {
                return Err("the server has closed the connection".into());
            }
        }
        let mut decoder = Decoder::new(frame.freeze());
        ResponseHeader::decode(&mut decoder, ApiKey::Fetch.response_header_version(VERSION))?;
        Ok(FetchResponse::decode(&mut decoder, VERSION)?)
    }

    fn take(&mut self, answer: FetchResponse) -> Result<(), Failure> {
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            if partition.error_code != 0 {
                let (index, code) = (partition.partition_index, partition.error_code);
                return Err(format!("partition {index}: error {code}").into());
            }
            let mut records = partition.records.map(|chain| chain.to_bytes()).unwrap_or_default();
            self.bytes += records.len();
            // The last batch may be cut short.
            while let Ok(batch) = BatchView::split_off(&mut records) {
                batch.check_crc()?;
                let next = self.next.entry(partition.partition_index).or_default();
                self.records += (batch.last_offset() + 1 - *next).max(0);
                *next = (*next).max(batch.last_offset() + 1);
            }
        }
        Ok(())
    }
}

async fn run(arguments: &[String]) -> Result<(), Failure> {
    let [address, topic, partitions, records] = arguments else {
        return Err("usage: drain ADDRESS TOPIC PARTITIONS RECORDS".into());
    };
    let wanted: i64 = records.parse()?;
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let next = (0..partitions.parse()?).map(|partition| (partition, 0)).collect();
    let mut drain = Drain { socket, topic: topic.clone(), next, records: 0, bytes: 0 };
    let begun = Instant::now();
    while drain.records < wanted {
        let answer = drain.fetch().await?;
        drain.take(answer)?;
    }
    println!("{:.6} {} {}", begun.elapsed().as_secs_f64(), drain.records, drain.bytes);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drain: {error}");
            ExitCode::FAILURE
        }
    }
}
