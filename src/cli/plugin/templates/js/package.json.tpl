{
  "name": "NAME",
  "private": true,
  "type": "module",
  "devDependencies": {
    "componentize-qjs": "0.4.5"
  }
}
