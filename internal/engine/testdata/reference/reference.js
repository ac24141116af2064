// Cedar's reference implementation as a judge. Each line on standard input is {"call", "input"}: the name
// of a function of cedar-wasm and its argument, as JSON inside a string. Each line on standard output is
// what the function answers.
//
// The argument stays text because JavaScript has no 64-bit integers: parsing it would round them. The
// bindings hand their argument to the reference through JSON.stringify, which is where the text goes in.
"use strict";

const readline = require("node:readline");
const cedar = require("@cedar-policy/cedar-wasm/nodejs");

class Text {
  constructor(json) {
    this.json = json;
  }
}

const stringify = JSON.stringify;
JSON.stringify = (value, ...rest) => (value instanceof Text ? value.json : stringify(value, ...rest));

console.log(stringify({ version: cedar.getCedarVersion() }));

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { call, input } = JSON.parse(line);
  console.log(stringify(cedar[call](new Text(input))));
});
