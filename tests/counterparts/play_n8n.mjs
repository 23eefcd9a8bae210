// Executes a workflow of n8n: follows its connections, evaluates its expressions and makes its HTTP calls. It supports
// the nodes that packaging/n8n uses and treats them as n8n does; n8n itself takes minutes and gigabytes to install.
//
//   node play_n8n.mjs WORKFLOW SETUP
//
// SETUP is JSON: {"form", "execution", "hosts": {from: to}, "headers": {credential name: headers}}. Prints one line of
// JSON: {"status", "body", "calls": [[method, url, status]]}.

import { readFileSync } from 'node:fs';

const [file, setup] = process.argv.slice(2);
const workflow = JSON.parse(readFileSync(file, 'utf8'));
const { form, execution, hosts, headers } = JSON.parse(setup);
const nodes = new Map(workflow.nodes.map((node) => [node.name, node]));
const seen = new Map();
const calls = [];

/** The value of a parameter: text that begins with `=` holds expressions. */
function value(text, json) {
  if (typeof text !== 'string' || !text.startsWith('=')) return text;
  const $ = (name) => ({ item: { json: seen.get(name) } });
  const run = (code) => new Function('$json', '$', '$execution', `return (${code})`)(json, $, { id: execution });
  const whole = /^=\{\{((?:(?!\}\}).)*)\}\}$/s.exec(text);
  if (whole) return run(whole[1]);
  return text.slice(1).replace(/\{\{(.*?)\}\}/gs, (_, code) => String(run(code)));
}

const operations = {
  notEmpty: (left) => left !== undefined && left !== null && left !== '',
  notContains: (left, right) => !String(left ?? '').includes(right),
  notEquals: (left, right) => left !== right,
  gte: (left, right) => left >= right,
  lt: (left, right) => left < right,
};

function isTrue({ conditions, combinator }, json) {
  const one = ({ leftValue, operator, rightValue }) =>
    operations[operator.operation](value(leftValue, json), value(rightValue, json));
  return combinator === 'and' ? conditions.every(one) : conditions.some(one);
}

async function call(node, json) {
  const { method, url, jsonBody, headerParameters } = node.parameters;
  const sent = { 'content-type': 'application/json', connection: 'close' };
  for (const { name, value: text } of headerParameters?.parameters ?? []) sent[name] = value(text, json);
  for (const { name } of Object.values(node.credentials ?? {})) Object.assign(sent, headers[name]);
  let where = value(url, json);
  for (const [from, to] of Object.entries(hosts)) where = where.replace(from, to);
  let failure;
  for (let tries = 0; tries < (node.retryOnFail ? node.maxTries : 1); tries++) {
    try {
      const answer = await fetch(where, { method, headers: sent, body: value(jsonBody, json) });
      calls.push([method, where, answer.status]);
      const text = await answer.text();
      if (answer.ok) return { json: JSON.parse(text), output: 0 };
      failure = { message: `${answer.status} - ${text}`, status: answer.status };
    } catch (error) {
      calls.push([method, where, null]);
      failure = { message: String(error) };
    }
  }
  if (node.onError !== 'continueErrorOutput') throw new Error(`${node.name}: ${failure.message}`);
  return { json: { ...json, error: failure }, output: 1 };
}

let name = workflow.nodes.find((node) => node.type === 'n8n-nodes-base.webhook').name;
let json = { body: form };
for (;;) {
  const node = nodes.get(name);
  let output = 0;
  switch (node.type) {
    case 'n8n-nodes-base.webhook':
      break;
    case 'n8n-nodes-base.if':
      output = isTrue(node.parameters.conditions, json) ? 0 : 1;
      break;
    case 'n8n-nodes-base.httpRequest':
      ({ json, output } = await call(node, json));
      break;
    case 'n8n-nodes-base.respondToWebhook': {
      const body = JSON.parse(value(node.parameters.responseBody, json));
      console.log(JSON.stringify({ status: node.parameters.options.responseCode, body, calls }));
      process.exit(0);
    }
    default:
      throw new Error(`no such node: ${node.type}`);
  }
  seen.set(name, json);
  name = workflow.connections[name].main[output][0].node;
}
