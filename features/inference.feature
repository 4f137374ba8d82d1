Feature: Text from a model
  One command streams a model's text to stdout, with or without daemons that run already.

  @s34
  Scenario: A worker streams its tokens to any caller with its key
    Given a queen runs
    And a worker that is idle
    When a client asks the worker for 40 tokens
    Then the tokens count from 0 and come one by one
    And the stream ends with the total, the duration and the last event
    And the worker was seen idle, busy and idle again

  @s34
  Scenario: The user sees the text as it is written
    Given a model that writes without end
    And a queen runs
    When the user starts infer with that model and 200 tokens
    Then the first letters are there while the worker is busy
    And infer ends with 0 and has printed 200 letters and one newline
    And the worker is idle again

  @s50
  Scenario: The keeper leaves and the daemons stay
    Given a queen runs
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
    And the hive and the worker still run and are listed

  @s51
  Scenario: One command without any daemon leaves nothing behind
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
    And stdout holds the text and one newline
    And no process of rbee is left

  @s51
  Scenario: A keeper that is killed leaves nothing behind either
    When the user starts infer and kills the keeper while it waits
    Then no process of rbee is left within 20 seconds

  @s52
  Scenario: A hive that runs already is used
    Given a hive that the user started
    And a queen runs
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
    And that hive served it and there is no other
    When the queen is told to end
    Then that hive and its worker live on

  @s53
  Scenario: Errors have one structure
    Given a queen runs
    And a worker that is idle
    When clients send requests that must fail to queen, hive and worker
    Then each answer is an error object with a published code, a message, details and the correlation id

  @s58
  Scenario: The whole option set
    When the user runs infer on local with every option
    Then it exits with 0
    And stdout holds the text and one newline
    When the user runs infer on local with every option
    Then it exits with 0
    And the text is the same as before
    When the user runs infer on local with every option, and --quiet
    Then it exits with 0
    And the text is the same as before, and nothing else was reported
    When the user runs infer on local with every option, and --json
    Then it exits with 0
    And stdout is an object with the same text

  @s58
  Scenario: The prompt comes through a pipe
    When the user pipes "The queen bee" into infer
    Then it exits with 0
    And stdout holds the text and one newline

  @h1
  Scenario Outline: A model reference that is none
    When the user runs infer with the model "<reference>"
    Then it exits with 1
    And stderr says "model reference"
    And stderr says "hf:ORG/REPO"
    And nothing was started

    Examples:
      | reference           |
      | tinyllama           |
      | hf:only-one-part    |
      | file:../model.gguf  |
      | hf:a/b;touch canary |

  @h8
  Scenario Outline: A prompt that is no text
    When the user runs infer with <what> <way>
    Then it exits with 1
    And stderr says "prompt"
    And nothing was started

    Examples:
      | what          | way                |
      | invalid UTF-8 | as an argument     |
      | invalid UTF-8 | on standard input  |
      | a NUL         | on standard input  |

  @h8
  Scenario: The daemons refuse such prompts too
    Given a queen runs
    And a worker that is idle
    When clients send prompts that are no text to queen and worker
    Then each answer has status 400 and code INVALID_REQUEST

  Scenario: One file for every Python
    When the user runs infer under each CPython from 3.11 to 3.14 that is here
    Then each printed the text and one newline, and left no process
