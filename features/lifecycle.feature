Feature: The life of daemons and workers
  A hive keeps its list of workers true, and gives their memory back; it outlives them all.

  @s28 @s29
  Scenario: The entry of a worker
    Given workers with 3 slots
    And a hive that the user started
    And a model that takes a while to load
    When a client asks the hive to start a worker for it
    Then its entry has id, url, model, backend and device, state loading, and 0 of 3 slots available
    And the table of the hive holds the same

  @s29
  Scenario: After a crash of the hive only workers that really run are listed
    Given a hive that the user started
    And 2 workers that are idle
    When the hive and the first worker are killed
    And a hive is started again
    Then its list and its table hold the other worker only, idle, with the same process

  @s45
  Scenario: An idle worker gives its memory back
    Given workers may be idle for 1 second
    And a queen runs
    And a worker that is idle
    Then the worker is told to shut down, unloads its model and is gone
    When the user runs infer with the prompt "Once upon a time"
    Then it exits with 0
    And stderr says "Starting a worker"

  @s46
  Scenario: A hive goes on after a worker is ready
    Given workers may be idle for 2 seconds, and are asked for their health every 0.3
    And a hive that the user started
    And 1 worker that is idle
    Then the worker's health is polled
    And a second worker can be started
    And both are ended for being idle
    And the hive still answers, and is the same process

  @s47
  Scenario: The health of a worker
    Given workers are asked for their health every 0.3 seconds, and have 0.5 to answer
    And a hive that the user started
    And 1 worker that is idle
    Then the worker's health is polled
    When the worker hangs
    Then it is listed as unhealthy
    And after 3 checks it is removed, and its process is gone
    And the hive's log says that it did not answer 3 health checks
    And the hive still answers, and is the same process

  @s48
  Scenario: The idle limit ends the worker only
    Given workers may be idle for 1 second
    And a queen runs
    And a worker that is idle
    Then the worker is told to shut down, unloads its model and is gone
    And queen and hive live on

  @s49
  Scenario: The hive ends its workers, then itself
    Given a hive that the user started
    And 3 workers with models of their own
    When the hive is told to end
    Then all 3 workers were told within a second, and ended by themselves
    And the hive ends with 0 and leaves no process
    And the table of the hive is still there, and empty

  Scenario: A worker that reads a large model when it is told to end
    Given a hive that the user started
    And a model file of 3000 MB
    When a client asks the hive to start a worker for it
    And the hive is told to end
    Then it took at most 2 seconds, and no worker was killed
    And the hive ends with 0 and leaves no process
