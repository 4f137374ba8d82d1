Feature: Workers on this machine
  The hive starts a worker for a model, follows it while it loads, and lists it.

  @s09
  Scenario: An empty list of workers
    Given a hive that the user started
    Then its list of workers is exactly '{"workers": []}'
    Given a queen runs
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0

  @s10
  Scenario: An idle worker is used again
    Given a queen runs
    And a worker that is idle
    When a client asks the queen for a task
    Then the task names that worker
    And no worker was started for it
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
    And stdout holds the text and one newline
    And nothing was checked for it, and no worker was started for it

  @s12
  Scenario: A hive that is well
    Given a hive that the user started
    Then its health is alive with the program's version and API version v1
    Given a queen runs
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0

  @s27
  Scenario: The start of a worker
    Given a hive that the user started
    And a model that takes a while to load
    When a client asks the hive to start a worker for it
    Then the answer has state loading and came before the model was loaded
    And the worker's process has model, backend, device and port in its arguments
    And the worker's key is neither in its arguments nor in its environment
    And the worker listens on the first free port

  @s28
  Scenario: The ready callback
    Given the test listens as a hive would
    When a worker is started for it
    Then it posts worker_id, url, model_ref, backend and device with its key
    And the url answers before the model is loaded

  @s28
  Scenario: The hive takes callbacks of its own workers only
    Given a hive that the user started
    When a callback names a worker that was never started
    Then the hive answers it with 404

  @s30
  Scenario: A worker that loads says so
    Given a hive that the user started
    And a model that takes a while to load
    When a client asks the hive to start a worker for it
    Then its readiness is false with state loading and an absolute progress URL
    And that URL answers with an event stream

  @s31
  Scenario: Loading is followed layer by layer
    Given a hive that the user started
    And a model that takes a while to load
    When a client asks the hive to start a worker for it
    Then its loading stream counts layers up to the total, with megabytes
    And the stream ends with ready and the last event

  @s31
  Scenario: The user sees a bar with layers
    Given a queen runs
    And a model that takes a while to load
    When the user runs infer with it on a terminal
    Then the terminal showed a bar with layers

  @s32
  Scenario: A worker that has loaded says so
    Given a queen runs
    And a worker that is idle
    Then its readiness is true with state idle and the model loaded
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
