Feature: What the user sees when something fails
  Each failure says what happened, where, and what to do; its exit code is 1, and it leaves nothing running that did not
  run before.

  @s11
  Scenario: A busy worker is not started twice
    Given workers with 1 slot
    And a model that writes without end
    And a queen runs
    And someone else's infer writes with that model
    When a client asks the queen for a task with that model
    Then the task names the busy worker, and no other was started
    And the worker answers the request with 503, ALL_SLOTS_BUSY and 1 of 1 slots busy

  @s35
  Scenario: A worker that stays busy
    Given workers with 1 slot
    And a model that writes without end
    And a queen runs
    And someone else's infer writes with that model
    When the user runs infer with that model and --wait 0
    Then it exits with 1
    And its retries came after 1, 2 and 4 seconds
    And stdout is empty
    And stderr says "still busy after 3 retries"
    And stderr says "hint: wait for a running request to end, or use another node (--node)"
    And the worker refused 4 requests
    And someone else's infer still writes

  @s41
  Scenario: The retries are visible on a terminal
    Given workers with 1 slot
    And a model that writes without end
    And a queen runs
    And someone else's infer writes with that model
    When the user runs infer with that model and --wait 0 on a terminal
    Then it exits with 1
    And the terminal showed in this order
      | retrying in 1 s            |
      | retrying in 2 s            |
      | retrying in 4 s            |
      | still busy after 3 retries |
      | wait for a running request |

  @s33 @h5
  Scenario: A worker that never ends loading
    Given a worker that never ends loading its model
    And models may load for 1 second
    When the user runs infer with the prompt "Hello"
    Then it exits with 1
    And stdout is empty
    And stderr names the limit of 1 s, the state loading, and 3 of 8 layers
    And stderr names the worker's log
    And no process of rbee is left

  @s33 @s42
  Scenario: A loading that takes too long, with daemons that stay
    Given a worker that never ends loading its model
    And models may load for 1 second
    And a queen runs
    When the user runs infer with the prompt "Hello"
    Then it exits with 1
    And stderr names the limit of 1 s, the state loading, and 3 of 8 layers
    And stderr names the worker's log
    And the worker is gone and the hive stays
    When a client has the queen relay a request
    Then the stream ends with the error LOADING_TIMEOUT and state loading

  @s44
  Scenario: A key that is not the swarm's
    Given a queen runs
    And a worker that is idle
    When clients with another key ask queen, hive and worker
    Then each answers 401 with INVALID_API_KEY and says how to authenticate
    When the user runs infer with another token file
    Then it exits with 1
    And stderr names the queen's host and that token file

  @h6
  Scenario: An inference that takes too long
    Given inferences may take 3 seconds
    And a model that writes without end
    When the user runs infer with that model
    Then it exits with 1
    And stderr says after how many seconds and tokens it was given up
    And stdout holds the text that had come
    And no process of rbee is left
