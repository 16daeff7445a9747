package sluice;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client as a child process: one JSON command a line on stdin, one JSON answer a line on
 * stdout, so that one JVM serves a whole test run. Byte strings are base64. An answer is
 * {"ok": ...} or {"error": simple name of the exception, "message": ...}.
 *
 * <p>Commands run one after another on the main thread. Consumers that stay open are known by the
 * name that the test gave them; they are polled only by `poll` commands.
 */
public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final String bootstrap;
    private final Map<String, KafkaConsumer<byte[], byte[]>> consumers = new HashMap<>();
    private final Map<String, KafkaShareConsumer<byte[], byte[]>> sharers = new HashMap<>();
    private Admin admin;

    private Driver(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(
                new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(
                new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Driver driver = new Driver(args[0]);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                answer.set("ok", driver.run(JSON.readTree(line)));
            } catch (Exception e) {
                Throwable cause =
                        e instanceof ExecutionException && e.getCause() != null ? e.getCause() : e;
                answer.put("error", cause.getClass().getSimpleName());
                answer.put("message", String.valueOf(cause.getMessage()));
            }
            out.println(JSON.writeValueAsString(answer));
        }
        driver.close();
    }

    private JsonNode run(JsonNode c) throws Exception {
        switch (c.get("do").asText()) {
            case "produce": return produce(c);
            case "consume": return consume(c);
            case "open": return open(c);
            case "poll": return poll(c);
            case "commit": return commit(c);
            case "close": return closeConsumer(c);
            case "create_topic": return createTopic(c);
            case "create_partitions": return createPartitions(c);
            case "delete_topic":
                admin().deleteTopics(List.of(c.get("topic").asText())).all().get();
                return JSON.nullNode();
            case "topics": return JSON.valueToTree(admin().listTopics().names().get());
            case "offset": return offset(c);
            case "delete_records": return deleteRecords(c);
            case "committed": return committed(c);
            case "delete_offsets": return deleteOffsets(c);
            case "groups": return groups();
            case "describe_group": return describeGroup(c);
            case "delete_group":
                admin().deleteConsumerGroups(List.of(c.get("group").asText())).all().get();
                return JSON.nullNode();
            case "configs": return configs(c);
            case "alter_configs": return alterConfigs(c);
            case "cluster": return cluster();
            case "share_open": return shareOpen(c);
            case "share_poll": return sharePoll(c);
            case "share_close":
                sharers.remove(c.get("name").asText()).close();
                return JSON.nullNode();
            case "share_group": return shareGroup(c);
            case "share_offsets": return shareOffsets(c);
            case "alter_share_offsets": return alterShareOffsets(c);
            case "delete_share_offsets":
                admin().deleteShareGroupOffsets(c.get("group").asText(),
                        Set.of(c.get("topic").asText())).all().get();
                return JSON.nullNode();
            case "delete_share_group":
                admin().deleteShareGroups(List.of(c.get("group").asText())).all().get();
                return JSON.nullNode();
            default: throw new IllegalArgumentException("unknown command " + c.get("do").asText());
        }
    }

    private Admin admin() {
        if (admin == null) {
            admin = Admin.create(properties(null));
        }
        return admin;
    }

    private Properties properties(JsonNode extra) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("reconnect.backoff.max.ms", "200");
        if (extra != null) {
            extra.properties().forEach(e -> p.put(e.getKey(), e.getValue().asText()));
        }
        return p;
    }

    private JsonNode produce(JsonNode c) throws Exception {
        ArrayNode answer = JSON.createArrayNode();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
                properties(c.get("config")), new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode r : c.get("records")) {
                List<Header> headers = new ArrayList<>();
                if (r.hasNonNull("headers")) {
                    for (JsonNode h : r.get("headers")) {
                        headers.add(new RecordHeader(h.get(0).asText(), bytes(h.get(1))));
                    }
                }
                sent.add(producer.send(new ProducerRecord<>(
                        c.get("topic").asText(),
                        r.hasNonNull("partition") ? r.get("partition").asInt() : null,
                        r.hasNonNull("timestamp") ? r.get("timestamp").asLong() : null,
                        bytes(r.get("key")), bytes(r.get("value")), headers)));
            }
            producer.flush();
            for (Future<RecordMetadata> f : sent) {
                answer.addArray().add(f.get().partition()).add(f.get().offset());
            }
        }
        return answer;
    }

    /** Reads `count` records of the partitions of a topic from their beginning, without a group. */
    private JsonNode consume(JsonNode c) {
        ArrayNode answer = JSON.createArrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(c.get("config"))) {
            String topic = c.get("topic").asText();
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(p -> new TopicPartition(topic, p.partition())).collect(Collectors.toList());
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            pollInto(consumer, answer, c.get("count").asInt(), c.get("timeout_ms").asLong());
        }
        return answer;
    }

    private JsonNode open(JsonNode c) {
        ObjectNode config = JSON.createObjectNode();
        config.put("group.id", c.get("group").asText());
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("session.timeout.ms", "10000");
        config.put("heartbeat.interval.ms", "500");
        if (c.has("config")) {
            c.get("config").properties().forEach(e -> config.set(e.getKey(), e.getValue()));
        }
        if (config.path("group.protocol").asText().equals("consumer")) {
            // These are the group's in the consumer protocol, and the client refuses them.
            config.remove(List.of("session.timeout.ms", "heartbeat.interval.ms"));
        }
        KafkaConsumer<byte[], byte[]> consumer = consumer(config);
        Set<String> topics = new HashSet<>();
        c.get("topics").forEach(t -> topics.add(t.asText()));
        consumer.subscribe(topics);
        consumers.put(c.get("name").asText(), consumer);
        return JSON.nullNode();
    }

    /** Polls an open consumer; answers what came and what it owns. */
    private JsonNode poll(JsonNode c) {
        KafkaConsumer<byte[], byte[]> consumer = consumers.get(c.get("name").asText());
        ObjectNode answer = JSON.createObjectNode();
        ArrayNode records = answer.putArray("records");
        pollInto(consumer, records, c.get("count").asInt(), c.get("timeout_ms").asLong());
        ArrayNode assigned = answer.putArray("assignment");
        for (TopicPartition p : consumer.assignment()) {
            assigned.addArray().add(p.topic()).add(p.partition());
        }
        answer.put("member", consumer.groupMetadata().memberId());
        answer.put("generation", consumer.groupMetadata().generationId());
        return answer;
    }

    private JsonNode commit(JsonNode c) {
        KafkaConsumer<byte[], byte[]> consumer = consumers.get(c.get("name").asText());
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (JsonNode o : c.get("offsets")) {
            offsets.put(partition(o), new OffsetAndMetadata(
                    o.get("offset").asLong(), Optional.empty(), o.path("metadata").asText("")));
        }
        consumer.commitSync(offsets);
        return JSON.nullNode();
    }

    private JsonNode closeConsumer(JsonNode c) {
        consumers.remove(c.get("name").asText()).close();
        return JSON.nullNode();
    }

    private JsonNode createTopic(JsonNode c) throws Exception {
        NewTopic topic = new NewTopic(
                c.get("topic").asText(), Optional.of(c.get("partitions").asInt()), Optional.empty());
        Map<String, String> configs = new HashMap<>();
        if (c.has("config")) {
            c.get("config").properties().forEach(
                    e -> configs.put(e.getKey(), e.getValue().asText()));
        }
        admin().createTopics(List.of(topic.configs(configs))).all().get();
        return JSON.nullNode();
    }

    private JsonNode createPartitions(JsonNode c) throws Exception {
        admin().createPartitions(Map.of(
                c.get("topic").asText(), NewPartitions.increaseTo(c.get("partitions").asInt()))).all().get();
        return JSON.nullNode();
    }

    private JsonNode offset(JsonNode c) throws Exception {
        OffsetSpec spec;
        switch (c.get("spec").asText()) {
            case "earliest": spec = OffsetSpec.earliest(); break;
            case "latest": spec = OffsetSpec.latest(); break;
            case "max_timestamp": spec = OffsetSpec.maxTimestamp(); break;
            default: spec = OffsetSpec.forTimestamp(c.get("spec").asLong());
        }
        var result = admin().listOffsets(Map.of(partition(c), spec)).all().get().get(partition(c));
        return JSON.createArrayNode().add(result.offset()).add(result.timestamp());
    }

    private JsonNode deleteRecords(JsonNode c) throws Exception {
        var result = admin().deleteRecords(
                Map.of(partition(c), RecordsToDelete.beforeOffset(c.get("offset").asLong())));
        return JSON.valueToTree(result.lowWatermarks().get(partition(c)).get().lowWatermark());
    }

    private JsonNode committed(JsonNode c) throws Exception {
        ArrayNode answer = JSON.createArrayNode();
        admin().listConsumerGroupOffsets(c.get("group").asText()).partitionsToOffsetAndMetadata().get()
                .forEach((p, o) -> {
                    if (o != null) {
                        answer.addArray().add(p.topic()).add(p.partition()).add(o.offset())
                                .add(o.metadata());
                    }
                });
        return answer;
    }

    private JsonNode deleteOffsets(JsonNode c) throws Exception {
        admin().deleteConsumerGroupOffsets(
                c.get("group").asText(), Set.of(partition(c))).partitionResult(partition(c)).get();
        return JSON.nullNode();
    }

    private JsonNode groups() throws Exception {
        ObjectNode answer = JSON.createObjectNode();
        admin().listGroups().all().get().forEach(g -> answer.put(
                g.groupId(), g.groupState().map(Object::toString).orElse("")));
        return answer;
    }

    private JsonNode describeGroup(JsonNode c) throws Exception {
        String group = c.get("group").asText();
        var d = admin().describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
        ObjectNode answer = JSON.createObjectNode();
        answer.put("state", d.groupState().toString());
        answer.put("assignor", d.partitionAssignor());
        ArrayNode members = answer.putArray("members");
        d.members().forEach(m -> {
            ObjectNode member = members.addObject();
            member.put("id", m.consumerId());
            member.put("client", m.clientId());
            member.put("host", m.host());
            member.put("instance", m.groupInstanceId().orElse(null));
            ArrayNode assigned = member.putArray("assignment");
            m.assignment().topicPartitions().forEach(
                    p -> assigned.addArray().add(p.topic()).add(p.partition()));
        });
        return answer;
    }

    private JsonNode configs(JsonNode c) throws Exception {
        ConfigResource topic = c.has("group")
                ? new ConfigResource(ConfigResource.Type.GROUP, c.get("group").asText())
                : new ConfigResource(ConfigResource.Type.TOPIC, c.get("topic").asText());
        Config config = admin().describeConfigs(List.of(topic),
                new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true))
                .all().get().get(topic);
        ObjectNode answer = JSON.createObjectNode();
        for (ConfigEntry e : config.entries()) {
            ObjectNode entry = answer.putObject(e.name());
            entry.put("value", e.value());
            entry.put("source", e.source().toString());
            entry.put("type", e.type().toString());
            entry.put("read_only", e.isReadOnly());
            ArrayNode synonyms = entry.putArray("synonyms");
            e.synonyms().forEach(
                    s -> synonyms.addArray().add(s.name()).add(s.value()).add(s.source().toString()));
        }
        return answer;
    }

    private JsonNode alterConfigs(JsonNode c) throws Exception {
        ConfigResource topic = c.has("group")
                ? new ConfigResource(ConfigResource.Type.GROUP, c.get("group").asText())
                : new ConfigResource(ConfigResource.Type.TOPIC, c.get("topic").asText());
        Collection<AlterConfigOp> ops = new ArrayList<>();
        for (JsonNode o : c.get("ops")) {
            ops.add(new AlterConfigOp(new ConfigEntry(o.get(1).asText(), o.path(2).asText(null)),
                    AlterConfigOp.OpType.valueOf(o.get(0).asText())));
        }
        admin().incrementalAlterConfigs(Map.of(topic, ops)).all().get();
        return JSON.nullNode();
    }

    /** Opens a share consumer; with mode "explicit" each record is to be acknowledged. */
    private JsonNode shareOpen(JsonNode c) {
        ObjectNode config = JSON.createObjectNode();
        config.put("group.id", c.get("group").asText());
        config.put("share.acknowledgement.mode", c.path("mode").asText("implicit"));
        if (c.has("config")) {
            c.get("config").properties().forEach(e -> config.set(e.getKey(), e.getValue()));
        }
        KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(
                properties(config), new ByteArrayDeserializer(), new ByteArrayDeserializer());
        Set<String> topics = new HashSet<>();
        c.get("topics").forEach(t -> topics.add(t.asText()));
        consumer.subscribe(topics);
        sharers.put(c.get("name").asText(), consumer);
        return JSON.nullNode();
    }

    /**
     * Polls a share consumer until it has `count` records or the time is up. With "say" each record is
     * acknowledged with that type (ACCEPT, RELEASE, REJECT, RENEW). Unless "commit" is false, what is
     * acknowledged is committed after each poll, and errors are told as [topic, partition, error].
     */
    private JsonNode sharePoll(JsonNode c) {
        KafkaShareConsumer<byte[], byte[]> consumer = sharers.get(c.get("name").asText());
        ObjectNode answer = JSON.createObjectNode();
        ArrayNode records = answer.putArray("records");
        ArrayNode errors = answer.putArray("errors");
        AcknowledgeType type = c.hasNonNull("say")
                ? AcknowledgeType.valueOf(c.get("say").asText()) : null;
        int count = c.get("count").asInt();
        long deadline = System.nanoTime() + c.get("timeout_ms").asLong() * 1_000_000;
        do {
            for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                ObjectNode record = records.addObject();
                record.put("partition", r.partition());
                record.put("offset", r.offset());
                record.put("value", r.value());
                record.put("deliveries", r.deliveryCount().orElse((short) -1));
                if (type != null) {
                    consumer.acknowledge(r, type);
                }
            }
            if (c.path("commit").asBoolean(true)) {
                consumer.commitSync().forEach((partition, error) -> error.ifPresent(
                        e -> errors.addArray().add(partition.topicPartition().partition())
                                .add(e.getClass().getSimpleName())));
            }
        } while (records.size() < count && System.nanoTime() < deadline);
        return answer;
    }

    private JsonNode shareGroup(JsonNode c) throws Exception {
        String group = c.get("group").asText();
        var d = admin().describeShareGroups(List.of(group)).all().get().get(group);
        ObjectNode answer = JSON.createObjectNode();
        answer.put("state", d.groupState().toString());
        answer.put("epoch", d.groupEpoch());
        ArrayNode members = answer.putArray("members");
        d.members().forEach(m -> members.add(m.assignment().topicPartitions().size()));
        return answer;
    }

    private JsonNode shareOffsets(JsonNode c) throws Exception {
        String group = c.get("group").asText();
        ArrayNode answer = JSON.createArrayNode();
        admin().listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec()))
                .partitionsToOffsetInfo(group).get().forEach((partition, info) -> {
                    ArrayNode one = answer.addArray();
                    one.add(partition.partition());
                    one.add(info == null ? -1 : info.startOffset());
                    one.add(info == null ? -1 : info.lag().orElse(-1L));
                });
        return answer;
    }

    private JsonNode alterShareOffsets(JsonNode c) throws Exception {
        TopicPartition partition =
                new TopicPartition(c.get("topic").asText(), c.get("partition").asInt());
        admin().alterShareGroupOffsets(c.get("group").asText(),
                Map.of(partition, c.get("offset").asLong())).all().get();
        return JSON.nullNode();
    }

    private JsonNode cluster() throws Exception {
        var d = admin().describeCluster();
        ObjectNode answer = JSON.createObjectNode();
        answer.put("id", d.clusterId().get());
        answer.put("controller", d.controller().get().id());
        ArrayNode nodes = answer.putArray("nodes");
        d.nodes().get().forEach(n -> nodes.addArray().add(n.id()).add(n.host()).add(n.port()));
        return answer;
    }

    private KafkaConsumer<byte[], byte[]> consumer(JsonNode config) {
        return new KafkaConsumer<>(
                properties(config), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void pollInto(
            KafkaConsumer<byte[], byte[]> consumer, ArrayNode answer, int count, long timeoutMs) {
        long deadline = System.nanoTime() + timeoutMs * 1_000_000;
        do {
            for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(100))) {
                ObjectNode record = answer.addObject();
                record.put("topic", r.topic());
                record.put("partition", r.partition());
                record.put("offset", r.offset());
                record.put("timestamp", r.timestamp());
                record.put("key", r.key());
                record.put("value", r.value());
                ArrayNode headers = record.putArray("headers");
                r.headers().forEach(h -> headers.addArray().add(h.key()).add(h.value()));
            }
        } while (answer.size() < count && System.nanoTime() < deadline);
    }

    private static TopicPartition partition(JsonNode c) {
        return new TopicPartition(c.get("topic").asText(), c.get("partition").asInt());
    }

    private static byte[] bytes(JsonNode node) throws Exception {
        return node == null || node.isNull() ? null : node.binaryValue();
    }

    private void close() {
        consumers.values().forEach(KafkaConsumer::close);
        sharers.values().forEach(KafkaShareConsumer::close);
        if (admin != null) {
            admin.close();
        }
    }
}
