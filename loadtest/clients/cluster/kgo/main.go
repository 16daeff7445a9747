// A producer that goes on until its stdin ends: franz-go, idempotent or transactional.
//
//	producer BOOTSTRAP TOPIC PARTITIONS NUMBER idempotent|transactional PAUSE_MS
//
// It prints one line for each record, as cluster/load.py reads them:
// "ack PARTITION OFFSET SEQUENCE", "aborted PARTITION SEQUENCE", "unknown PARTITION SEQUENCE"; and "failed WHY", "end".
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const length = 100

// value is laid out as in blackbox/verify.py.
func value(producer uint32, sequence uint64) []byte {
	v := make([]byte, length)
	copy(v, "slv1")
	binary.BigEndian.PutUint32(v[4:], producer)
	binary.BigEndian.PutUint64(v[8:], sequence)
	binary.BigEndian.PutUint32(v[16:], length-24)
	binary.BigEndian.PutUint32(v[length-4:], crc32.ChecksumIEEE(v[:length-4]))
	return v
}

type load struct {
	client    *kgo.Client
	topic     string
	number    uint32
	sequences []uint64
	print     sync.Mutex
	out       *bufio.Writer
	pause     time.Duration
	ended     chan struct{}
}

func (l *load) say(format string, args ...any) {
	l.print.Lock()
	defer l.print.Unlock()
	fmt.Fprintf(l.out, format+"\n", args...)
	l.out.Flush()
}

func (l *load) next(partition int) *kgo.Record {
	sequence := l.sequences[partition]
	l.sequences[partition]++
	return &kgo.Record{Topic: l.topic, Partition: int32(partition), Value: value(l.number, sequence)}
}

func sequence(r *kgo.Record) uint64 { return binary.BigEndian.Uint64(r.Value[8:]) }

func (l *load) resting() bool {
	select {
	case <-l.ended:
		return false
	case <-time.After(l.pause):
		return true
	}
}

func (l *load) idempotent(ctx context.Context) {
	for l.resting() {
		for partition := range l.sequences {
			l.client.Produce(ctx, l.next(partition), func(r *kgo.Record, err error) {
				if err != nil {
					l.say("failed %v", err)
					return
				}
				l.say("ack %d %d %d", r.Partition, r.Offset, sequence(r))
			})
		}
	}
	if err := l.client.Flush(ctx); err != nil {
		l.say("failed %v", err)
	}
}

func (l *load) transactional(ctx context.Context) {
	for count := 0; l.resting(); count++ {
		if err := l.client.BeginTransaction(); err != nil {
			l.say("failed begin: %v", err)
			return
		}
		var sent []*kgo.Record
		for partition := range l.sequences {
			sent = append(sent, l.next(partition))
		}
		commit := kgo.TransactionEndTry(count%5 != 4)
		if err := l.client.ProduceSync(ctx, sent...).FirstErr(); err != nil {
			commit = kgo.TryAbort
		}
		word := "aborted"
		if commit == kgo.TryCommit {
			word = "ack"
		}
		// What came of it is asked again until it is known.
		if err := l.client.EndTransaction(ctx, commit); err != nil {
			l.say("note end of transaction: %v", err)
			word = "unknown"
			if err := l.client.EndTransaction(ctx, kgo.TryAbort); err != nil {
				l.say("failed abort: %v", err)
				return
			}
		}
		for _, r := range sent {
			if word == "ack" {
				l.say("ack %d %d %d", r.Partition, r.Offset, sequence(r))
			} else {
				l.say("%s %d %d", word, r.Partition, sequence(r))
			}
		}
	}
}

func main() {
	partitions, _ := strconv.Atoi(os.Args[3])
	number, _ := strconv.Atoi(os.Args[4])
	pause, _ := strconv.Atoi(os.Args[6])
	l := &load{topic: os.Args[2], number: uint32(number), sequences: make([]uint64, partitions),
		out: bufio.NewWriter(os.Stdout), pause: time.Duration(pause) * time.Millisecond, ended: make(chan struct{})}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(2 * time.Millisecond),
		kgo.RecordRetries(1 << 30),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.RetryTimeout(2 * time.Minute),
		kgo.ProduceRequestTimeout(5 * time.Second),
		kgo.RequestTimeoutOverhead(2 * time.Second),
	}
	if os.Args[5] == "transactional" {
		options = append(options, kgo.TransactionalID("kgo-"+os.Args[2]+"-"+os.Args[4]))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		l.say("failed %v", err)
		return
	}
	l.client = client
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(l.ended)
	}()
	if os.Args[5] == "transactional" {
		l.transactional(context.Background())
	} else {
		l.idempotent(context.Background())
	}
	client.Close()
	l.say("end")
}
