//! Kafka wire protocol and record-batch views: pure, no I/O, no clock.
