// KafkaJS the whole way; arguments: directory of node_modules, bootstrap address, a name of its own.
const assert = require('assert')
const [modules, bootstrap, name] = process.argv.slice(2)
const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require(`${modules}/kafkajs`)

const kafka = new Kafka({ clientId: name, brokers: [bootstrap], logLevel: logLevel.NOTHING })

async function until(condition, what) {
  const deadline = Date.now() + 20_000
  while (!(await condition())) {
    assert(Date.now() < deadline, what)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  const configEntries = [{ name: 'retention.ms', value: '3600000' }]
  assert(await admin.createTopics({ topics: [{ topic: name, numPartitions: 4, configEntries }] }))
  assert.equal((await admin.fetchTopicMetadata({ topics: [name] })).topics[0].partitions.length, 4)

  const sent = new Set()
  const producer = kafka.producer()
  await producer.connect()
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = Array.from({ length: 200 }, (_, i) => ({ key: `${i}`, value: `${compression}-${i}`, headers: { h: 'x' } }))
    await producer.send({ topic: name, messages, compression })
    messages.forEach(message => sent.add(message.value))
  }

  const seen = []
  const members = [0, 1].map(() => kafka.consumer({ groupId: name, sessionTimeout: 10_000, heartbeatInterval: 500 }))
  for (const member of members) {
    await member.connect()
    await member.subscribe({ topics: [name], fromBeginning: true })
    await member.run({ eachMessage: async ({ message }) => { seen.push(message.value.toString()) } })
  }
  await until(async () => {
    const { groups: [group] } = await admin.describeGroups([name])
    return group.state === 'Stable' && group.members.length === 2
  }, 'two members')
  for (let i = 0; i < 40; i++) {
    await producer.send({ topic: name, messages: [{ partition: i % 4, value: `shared-${i}` }] })
    sent.add(`shared-${i}`)
  }
  await until(() => new Set(seen).size === sent.size, 'every record is consumed')
  for (const member of members) await member.disconnect()

  const committed = (await admin.fetchOffsets({ groupId: name, topics: [name] }))[0].partitions
  for (const { partition, high } of await admin.fetchTopicOffsets(name)) {
    assert.equal(committed.find(p => p.partition === partition).offset, high)
  }
  const resource = { type: ConfigResourceTypes.TOPIC, name }
  await admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '7200000' }] }] })
  const { resources: [described] } = await admin.describeConfigs({ resources: [resource], includeSynonyms: true })
  assert.equal(described.configEntries.find(c => c.configName === 'retention.ms').configValue, '7200000')
  assert((await admin.listGroups()).groups.some(group => group.groupId === name))
  await admin.deleteGroups([name])
  await admin.deleteTopics({ topics: [name] })
  await until(async () => !(await admin.listTopics()).includes(name), 'the topic is gone')
  await producer.disconnect()
  await admin.disconnect()
}

main().catch(error => { console.error(error); process.exit(1) })
