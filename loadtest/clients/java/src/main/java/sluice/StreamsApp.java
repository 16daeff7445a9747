package sluice;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.StreamsGroupDescription;
import org.apache.kafka.clients.admin.StreamsGroupMemberAssignment;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.ThreadMetadata;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;

/**
 * A Kafka Streams application: lines of IN go to UPPER in capitals, which needs no state, and each
 * word's count goes to COUNTS, which needs a repartition topic and a store with a changelog. The
 * store's cache is off, so that every single count is sent: under exactly-once processing the counts
 * of a word in COUNTS are 1, 2, 3 and so on, each once.
 *
 * <p>Arguments: bootstrap servers, IN, UPPER, COUNTS, then settings of Kafka Streams as key=value.
 * Each line on standard input is a command (tasks, describe, stop) and gets one line of JSON on
 * standard output; the application's states are lines of their own, {"state": ...}.
 */
public final class StreamsApp {
  private static final ObjectMapper JSON = new ObjectMapper();

  private StreamsApp() {}

  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("default.key.serde", Serdes.StringSerde.class);
    settings.put("default.value.serde", Serdes.StringSerde.class);
    settings.put("statestore.cache.max.bytes", "0");
    for (String setting : Arrays.asList(args).subList(4, args.length)) {
      int at = setting.indexOf('=');
      settings.put(setting.substring(0, at), setting.substring(at + 1));
    }

    StreamsBuilder builder = new StreamsBuilder();
    var lines = builder.<String, String>stream(args[1]);
    lines.mapValues(line -> line.toUpperCase(java.util.Locale.ROOT)).to(args[2]);
    lines
        .flatMapValues(line -> List.of(line.split(" ")))
        .groupBy((key, word) -> word, Grouped.as("by-word"))
        .count(Materialized.as("counts"))
        .toStream()
        .mapValues(String::valueOf)
        .to(args[3]);

    try (KafkaStreams streams = new KafkaStreams(builder.build(settings), settings)) {
      streams.setStateListener((now, before) -> say(Map.of("state", now.toString())));
      streams.setUncaughtExceptionHandler(
          error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
          });
      streams.start();
      obey(streams, settings);
      streams.close(Duration.ofSeconds(20));
    }
  }

  /** Until the input ends or says so. */
  private static void obey(KafkaStreams streams, Properties settings) throws Exception {
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      switch (line) {
        case "tasks" -> say(tasks(streams));
        case "describe" -> say(describe(settings));
        case "stop" -> {
          return;
        }
        default -> throw new IllegalArgumentException("unknown command " + line);
      }
    }
  }

  private static Map<String, Object> tasks(KafkaStreams streams) {
    var active = new TreeSet<String>();
    var standby = new TreeSet<String>();
    for (ThreadMetadata thread : streams.metadataForLocalThreads()) {
      thread.activeTasks().forEach(task -> active.add(task.taskId().toString()));
      thread.standbyTasks().forEach(task -> standby.add(task.taskId().toString()));
    }
    return Map.of("state", streams.state().toString(), "active", active, "standby", standby);
  }

  private static Map<String, Object> describe(Properties settings) throws Exception {
    String group = settings.getProperty("application.id");
    var servers = Map.<String, Object>of("bootstrap.servers", settings.get("bootstrap.servers"));
    try (Admin admin = Admin.create(servers)) {
      StreamsGroupDescription found =
          admin.describeStreamsGroups(List.of(group)).all().get().get(group);
      var members = new TreeMap<String, Object>();
      for (var member : found.members()) {
        members.put(
            member.memberId(),
            Map.of(
                "epoch", member.memberEpoch(),
                "active", ids(member.assignment().activeTasks()),
                "standby", ids(member.assignment().standbyTasks())));
      }
      Map<String, Object> told = new LinkedHashMap<>();
      told.put("state", found.groupState().toString());
      told.put("epoch", found.groupEpoch());
      told.put("assignment", found.targetAssignmentEpoch());
      told.put("topology", found.topologyEpoch());
      told.put("members", members);
      return told;
    }
  }

  private static TreeSet<String> ids(List<StreamsGroupMemberAssignment.TaskIds> tasks) {
    var ids = new TreeSet<String>();
    for (var task : tasks) {
      task.partitions().forEach(partition -> ids.add(task.subtopologyId() + "_" + partition));
    }
    return ids;
  }

  private static synchronized void say(Map<String, Object> answer) {
    try {
      System.out.println(JSON.writeValueAsString(answer));
    } catch (java.io.IOException e) {
      throw new java.io.UncheckedIOException(e);
    }
  }
}
