Feature: Workers that die or never start
  What had come stays with the user, and the reason is shown in words with the end of the worker's log. Exit code 1, and
  nothing runs that did not run before.

  @s39
  Scenario: A worker dies while it writes
    Given a model that writes without end
    And a queen runs
    And infer runs with it and has written 20 tokens
    When the worker gets a memory fault
    Then infer ends with 1 and its text stays as far as it came
    And stderr says that the stream closed unexpectedly, with that many of 16000 tokens
    And stderr names a file, which only the user can read, with that text
    And stderr says that the worker ended by SIGSEGV, with its pid, the end of its log and its path
    And the hive has removed the worker, and logged its pid and SIGSEGV
    And workers list says so too

  @s39
  Scenario: A worker dies after its third token, in a command of its own
    Given a worker that gets a memory fault after 3 tokens
    When the user runs infer with the prompt "Hello" and 20 tokens
    Then it exits with 1
    And stdout is exactly "Once upon a"
    And stderr says "the stream closed unexpectedly, with 3 of 20 tokens"
    And stderr says "SIGSEGV (a memory fault in native code)"
    And no process of rbee is left

  @h4
  Scenario Outline: A worker that cannot start
    Given a worker that <misbehaves>
    And workers have 1 second to start
    When the user runs infer with the prompt "Hello"
    Then it exits with 1
    And stdout is empty
    And stderr says "node local: <reason>"
    And stderr says "<last words>"
    And stderr names the worker's log
    And no process of rbee is left

    Examples:
      | misbehaves       | reason                                            | last words                            |
      | never calls back | the worker was not ready 1 s after its start      | waiting for a device that never comes |
      | ends at once     | the worker ended before it was ready: exit code 7 | the device is on fire                 |

  @h9
  Scenario Outline: Memory runs out while a model loads
    Given a model that takes a while to load
    And workers may use <limit> MB of address space
    When the user runs infer with it
    Then it exits with 1
    And stdout is empty
    And stderr says "<reason>"
    And stderr says "<advice>"
    And stderr names the worker's log
    And no process of rbee is left

    Examples:
      | limit | reason                                       | advice               |
      | 500   | slow.gguf: not enough memory                 | smaller quantisation |
      | 900   | not enough memory for 4 slots of 2048 tokens | use fewer slots      |

  @h9
  Scenario: A worker is killed for its memory while it loads
    Given a worker that takes all memory while it loads
    When the user runs infer with the prompt "Hello"
    Then it exits with 1
    And stdout is empty
    And stderr says "the worker ended while it loaded its model"
    And stderr says "SIGKILL (killed, perhaps because memory ran out)"
    And stderr names the worker's log
    And no process of rbee is left

  @h7
  Scenario: A worker that will not unload, in a command of its own
    Given a worker that reacts to neither a shutdown nor SIGTERM
    And workers have 1 second to unload
    When the user runs infer with the prompt "Hello"
    Then it exits with 1
    And stdout holds the text and one newline
    And stderr says "had not ended 1 s after it was told to, and was killed"
    And stderr names the worker's log
    And no process of rbee is left

  @h7
  Scenario: A worker that will not unload, when the user ends everything
    Given a worker that reacts to neither a shutdown nor SIGTERM
    And workers have 1 second to unload
    And the user has run up
    When the user runs infer with the prompt "Hello"
    Then it exits with 0
    When the user runs down
    Then it exits with 1
    And stderr says "had not ended 1 s after it was told to, and was killed"
    And stderr names the worker's log
    And no process of rbee is left

  @h7
  Scenario: A worker that will not unload when its time is over
    Given a worker that reacts to neither a shutdown nor SIGTERM
    And workers have 1 second to unload
    And workers may be idle for 1 second
    And a queen runs
    When the user runs infer with the prompt "Hello"
    Then it exits with 0
    And within 10 seconds the worker is killed
    When the user lists the workers
    Then workers list names that worker, its pid, why it was killed, and its log

  @h7
  Scenario: A worker that will not unload, when the user ends it
    Given a worker that reacts to neither a shutdown nor SIGTERM
    And workers have 1 second to unload
    And a queen runs
    And a worker that is idle
    When the user shuts it down
    Then it exits with 1
    And stderr says "had not ended 1 s after it was told to, and was killed"
    And only queen and hive still run
