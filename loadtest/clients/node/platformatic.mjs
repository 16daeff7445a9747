// @platformatic/kafka the whole way; arguments: directory of node_modules, bootstrap address, a name of its own.
import assert from 'node:assert'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [modules, bootstrap, name] = process.argv.slice(2)
const entry = createRequire(`${modules}/`).resolve('@platformatic/kafka')
const { Admin, Producer, Consumer, stringSerializers, stringDeserializers } = await import(pathToFileURL(entry))
const client = { clientId: name, bootstrapBrokers: [bootstrap] }

async function until(condition, what) {
  const deadline = Date.now() + 20_000
  while (!(await condition())) {
    assert(Date.now() < deadline, what)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

const admin = new Admin(client)
await admin.createTopics({ topics: [name], partitions: 4, replicas: 1, configs: [{ name: 'retention.ms', value: '3600000' }] })
assert.equal((await admin.metadata({ topics: [name] })).topics.get(name).partitionsCount, 4)

const sent = new Set()
for (const compression of ['none', 'gzip', 'snappy', 'lz4']) {
  const producer = new Producer({ ...client, serializers: stringSerializers, compression, acks: -1 })
  const messages = Array.from({ length: 100 }, (_, i) => ({ topic: name, key: `${i}`, value: `${compression}-${i}` }))
  await producer.send({ messages })
  messages.forEach(message => sent.add(message.value))
  await producer.close()
}

const seen = []
const members = []
for (let i = 0; i < 2; i++) {
  const consumer = new Consumer({
    ...client, groupId: name, deserializers: stringDeserializers, sessionTimeout: 10_000, heartbeatInterval: 500, rebalanceTimeout: 10_000
  })
  const stream = await consumer.consume({ topics: [name], mode: 'committed', fallbackMode: 'earliest', autocommit: true, maxWaitTime: 500 })
  stream.on('data', message => seen.push(message.value))
  members.push({ consumer, stream })
}
await until(async () => {
  const group = (await admin.describeGroups({ groups: [name] })).get(name)
  return group.state === 'STABLE' && group.members.size === 2
}, 'two members')
const producer = new Producer({ ...client, serializers: stringSerializers, idempotent: true })
for (let i = 0; i < 40; i++) {
  await producer.send({ messages: [{ topic: name, partition: i % 4, value: `shared-${i}` }] })
  sent.add(`shared-${i}`)
}
await producer.close()
await until(() => new Set(seen).size === sent.size, 'every record is consumed')
for (const { consumer, stream } of members) {
  await stream.close()
  await consumer.close()
}

const [{ topics: [committed] }] = await admin.listConsumerGroupOffsets({ groups: [name] })
// Not sent.size: while a new topic gets its leaders, this producer repeats what a partition has already.
const partitions = [0, 1, 2, 3].map(partitionIndex => ({ partitionIndex, timestamp: -1n }))
const [ends] = await admin.listOffsets({ topics: [{ name, partitions }] })
for (const { partitionIndex, offset } of ends.partitions) {
  assert.equal(committed.partitions.find(p => p.partitionIndex === partitionIndex).committedOffset, offset)
}
const resource = { resourceType: 2, resourceName: name }
await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs: [{ name: 'retention.ms', configOperation: 0, value: '7200000' }] }] })
const [described] = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: ['retention.ms'] }] })
assert.equal(described.configs[0].value, '7200000')
assert((await admin.listGroups()).has(name))
await admin.deleteGroups({ groups: [name] })
await admin.deleteTopics({ topics: [name] })
await until(async () => !(await admin.listTopics()).includes(name), 'the topic is gone')
await admin.close()
