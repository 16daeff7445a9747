"""The same requests to Apache Kafka and to Sluice, and the answers side by side."""
