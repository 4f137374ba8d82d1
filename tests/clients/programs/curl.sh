#!/bin/bash
# curl with jq, as in the README: bash curl.sh URL MODEL
set -uo pipefail
url=$1 model=$2
json='Content-Type: application/json'

told() { # JOB ASKED CAME PROBLEM
    jq -nc --arg job "$1" --arg asked "$2" --arg came "$3" --arg problem "$4" \
        '{job: $job, asked: $asked, came: $came, problem: (if $problem == "" then null else $problem end)}'
}

body() { # FIELDS: a request for the model, with these fields
    jq -nc --arg model "$model" "{model: \$model, temperature: 0, max_tokens: 8,
        messages: [{role: \"user\", content: \"Tell me of a bee.\"}]} + $1"
}

came=$(curl -sS --fail-with-body "$url/chat/completions" -H "$json" -d "$(body '{}')" |
    jq -er '.choices[0].message.content') && problem='' || problem="exit code $?"
told whole 'an answer of 8 tokens' "$came" "$problem"
whole=$came

came=$(curl -sSN --fail-with-body "$url/chat/completions" -H "$json" -d "$(body '{stream: true}')" |
    sed -n 's/^data: {/{/p' | jq -jr '.choices[0].delta.content // empty') && problem='' || problem="exit code $?"
[ "$came" = "$whole" ] || problem="not the same text as in one piece: $whole"
told stream 'the same, streamed, without buffers' "$came" "$problem"

came=$(curl -sS "$url/models" | jq -er '.data[].id' | paste -sd ' ') && problem='' || problem="exit code $?"
told models 'the list' "$came" "$problem"

came=$(curl -sS -o /dev/null -w '%{http_code}' "$url/models/${model//\//%2F}") && problem='' || problem="exit code $?"
[ "$came" = 200 ] || problem="the status is $came"
told model 'one model' "$came" "$problem"

came=$(curl -sS "$url/chat/completions" -H "$json" -d '{"messages": 1}' | jq -er '.error.message') && problem='' ||
    problem="exit code $?"
told error 'messages that are a number' "$came" "$problem"

came=$(curl -sS "$url/chat/completions" -d "$(body '{}')" | jq -er '.choices[0].message.content') && problem='' ||
    problem="exit code $?"
told "without a type" 'an answer, without a content type' "$came" "$problem"
