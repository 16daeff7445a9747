package sluice;

import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.zip.CRC32;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A producer that goes on until its stdin ends, idempotent or transactional:
 * {@code Load BOOTSTRAP TOPIC PARTITIONS NUMBER idempotent|transactional PAUSE_MS}.
 *
 * <p>It prints a line for each record, as cluster/load.py reads them: {@code ack PARTITION OFFSET SEQUENCE},
 * {@code aborted PARTITION SEQUENCE}, {@code unknown PARTITION SEQUENCE}; and {@code failed WHY}, {@code end}.
 */
public final class Load {
    private static final int LENGTH = 100;
    private static final PrintStream OUT = System.out;

    private final String topic;
    private final int number;
    private final long[] sequences;
    private final long pauseMs;
    private volatile boolean ended;

    private Load(String topic, int partitions, int number, long pauseMs) {
        this.topic = topic;
        this.number = number;
        this.sequences = new long[partitions];
        this.pauseMs = pauseMs;
    }

    public static void main(String[] args) throws Exception {
        Load load = new Load(
                args[1], Integer.parseInt(args[2]), Integer.parseInt(args[3]), Long.parseLong(args[5]));
        boolean transactional = args[4].equals("transactional");
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("linger.ms", "2");
        config.put("delivery.timeout.ms", "120000");
        config.put("request.timeout.ms", "5000");
        config.put("max.block.ms", "120000");
        config.put("retry.backoff.ms", "50");
        config.put("retry.backoff.max.ms", "200");
        config.put("reconnect.backoff.ms", "20");
        config.put("reconnect.backoff.max.ms", "250");
        config.put("socket.connection.setup.timeout.ms", "2000");
        if (transactional) {
            config.put("transactional.id", "java-" + args[1] + "-" + args[3]);
        }
        Thread watch = new Thread(load::waitForEnd);
        watch.setDaemon(true);
        watch.start();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (transactional) {
                load.transactional(producer);
            } else {
                load.idempotent(producer);
            }
        } catch (Exception e) {
            say("failed " + e);
        }
        say("end");
    }

    private void waitForEnd() {
        try {
            while (System.in.read() >= 0) {}
        } catch (java.io.IOException e) {
            say("failed " + e);
        }
        ended = true;
    }

    private static void say(String line) {
        synchronized (OUT) {
            OUT.println(line);
        }
    }

    private byte[] value(long sequence) {
        ByteBuffer value = ByteBuffer.allocate(LENGTH);
        value.put(new byte[] {'s', 'l', 'v', '1'}).putInt(number).putLong(sequence).putInt(LENGTH - 24);
        CRC32 crc = new CRC32();
        crc.update(value.array(), 0, LENGTH - 4);
        return value.putInt(LENGTH - 4, (int) crc.getValue()).array();
    }

    private ProducerRecord<byte[], byte[]> next(int partition) {
        return new ProducerRecord<>(topic, partition, null, value(sequences[partition]++));
    }

    private void idempotent(KafkaProducer<byte[], byte[]> producer) throws InterruptedException {
        while (!ended) {
            for (int partition = 0; partition < sequences.length; partition++) {
                long sequence = sequences[partition];
                producer.send(next(partition), (done, error) -> {
                    if (error != null) {
                        say("failed " + error);
                    } else {
                        say("ack " + done.partition() + " " + done.offset() + " " + sequence);
                    }
                });
            }
            Thread.sleep(pauseMs);
        }
        producer.flush();
    }

    private void transactional(KafkaProducer<byte[], byte[]> producer) throws InterruptedException {
        producer.initTransactions();
        for (int count = 0; !ended; count++) {
            producer.beginTransaction();
            long[] begun = sequences.clone();
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            String word = count % 5 == 4 ? "aborted" : "ack";
            try {
                for (int partition = 0; partition < sequences.length; partition++) {
                    sent.add(producer.send(next(partition)));
                }
                if (word.equals("ack")) {
                    commit(producer);
                } else {
                    producer.abortTransaction();
                }
            } catch (ProducerFencedException | InvalidProducerEpochException e) {
                throw e;
            } catch (KafkaException e) {
                say("note " + e);
                word = "aborted";
                producer.abortTransaction();
            }
            for (int partition = 0; partition < sequences.length; partition++) {
                long sequence = begun[partition];
                if (word.equals("ack")) {
                    say("ack " + partition + " " + offset(sent.get(partition)) + " " + sequence);
                } else if (sequences[partition] > sequence) {
                    say(word + " " + partition + " " + sequence);
                }
            }
            Thread.sleep(pauseMs);
        }
    }

    private static long offset(Future<RecordMetadata> sent) throws InterruptedException {
        try {
            return sent.get().offset();
        } catch (java.util.concurrent.ExecutionException e) {
            throw new IllegalStateException("a record of a committed transaction was not acknowledged", e);
        }
    }

    /** The client does not know what came of a commit that timed out: it has to be asked for again. */
    private static void commit(KafkaProducer<byte[], byte[]> producer) {
        while (true) {
            try {
                producer.commitTransaction();
                return;
            } catch (TimeoutException e) {
                say("note " + e);
            }
        }
    }
}
