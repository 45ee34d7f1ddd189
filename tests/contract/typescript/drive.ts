// Drives a client that @hey-api/openapi-ts made of openapi.yaml: `node drive.js http://127.0.0.1:5003`.
// It is compiled with `strict`, so that the generated types are a part of what is tested.
import assert from 'node:assert/strict';
import { createClient } from './client/client/index.js';
import {
    callAgent,
    createMessage,
    createSchedule,
    getSchedule,
    listMessages,
    listRuns,
    pauseSchedule,
    registerAgent,
    triggerSchedule,
} from './client/index.js';
import type { MessageRead, Problem, ScheduleRead } from './client/index.js';

const client = createClient({ baseUrl: process.argv[2] });

async function main(): Promise<void> {
    const { data: agent } = await registerAgent({
        client,
        body: { name: 'generated-ts', description: '', acp_url: 'http://127.0.0.1:9', acp_type: 'sync' },
        throwOnError: true,
    });
    await schedules(agent.id);
    await messages(agent.id);
}

async function schedules(agentId: string): Promise<void> {
    const path = { agent_id: agentId };
    const body = { name: 'nightly', interval_seconds: 3600, initial_input: { content: 'go' } };
    const { data: made } = await createSchedule({ client, path, body, throwOnError: true });
    const read: ScheduleRead = made;
    assert.equal(read.state, 'ACTIVE');

    const twice = await createSchedule({ client, path, body });
    const problem: Problem | undefined = twice.error;
    assert.equal(twice.response?.status, 400);
    assert.equal(problem?.code, 400);

    const one = { ...path, schedule_id: made.id };
    const { data: paused } = await pauseSchedule({ client, path: one, throwOnError: true });
    assert.equal(paused.state, 'PAUSED');
    const { data: triggered } = await triggerSchedule({ client, path: one, throwOnError: true });
    const { data: runs } = await listRuns({ client, query: { agent_id: agentId }, throwOnError: true });
    assert.deepEqual(runs.runs.map((run) => run.id), [triggered.run_id]);
    const missing = await getSchedule({ client, path: { ...path, schedule_id: agentId } });
    assert.equal(missing.response?.status, 404);
}

async function messages(agentId: string): Promise<void> {
    const { data: answer } = await callAgent({
        client,
        path: { agent_id: agentId },
        body: { method: 'task/create', params: {}, id: 7 },
        throwOnError: true,
    });
    assert.equal(answer.id, 7);
    const { id: taskId } = answer.result as { id: string };
    await createMessage({
        client,
        body: { task_id: taskId, content: { type: 'data', author: 'agent', data: { n: 1 } } },
        throwOnError: true,
    });
    const { data: listed } = await listMessages({ client, query: { task_id: taskId }, throwOnError: true });
    assert.equal(listed.map(shown).join(), '{"n":1}');
}

// The union is told apart by `type`: without the discriminator this would not compile.
function shown(message: MessageRead): string {
    switch (message.content.type) {
        case 'data':
            return JSON.stringify(message.content.data);
        case 'text':
            return message.content.content;
        default:
            return message.content.type ?? '';
    }
}

await main();
