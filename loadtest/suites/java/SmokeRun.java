import java.time.Duration;
import org.apache.kafka.streams.tests.SmokeTestDriver;

/**
 * The driver of Kafka Streams' smoke test for as long as is wanted; that of StreamsSmokeTest goes on for 90 s. It
 * generates the data, then waits for the results of the processors and compares them with what they must be under
 * exactly-once processing. The judgement is the driver's own.
 *
 * <p>Arguments: bootstrap servers, seconds to generate, records a key. Says "generated" when all data is written,
 * and "SUCCESS" or "FAILURE" at the end.
 */
public final class SmokeRun {
  private static final int KEYS = 20;

  private SmokeRun() {}

  public static void main(String[] args) {
    int records = Integer.parseInt(args[2]);
    var data = SmokeTestDriver.generate(args[0], KEYS, records, Duration.ofSeconds(Long.parseLong(args[1])));
    System.out.println("generated");
    SmokeTestDriver.verify(args[0], data, records, true);
  }
}
