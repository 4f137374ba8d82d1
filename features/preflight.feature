Feature: What is checked before a worker starts
  A start that cannot succeed is refused at once, with the reason and the way out; no process is started for it.

  The first two scenarios need a control group, which only root can make; tests/unit/hive/test_preflight.py holds the numbers
  where there is none.

  @s23
  Scenario: A model that fits into memory
    Given a machine with 8000 MB of available memory
    And a model file of 5000 MB
    When a client asks the hive for a worker and follows what it reports
    Then it learns that 6000 of 8000 MB are taken, and then of the start on cpu:0
    And a worker's process runs

  @s24 @s38
  Scenario: A model that does not fit into memory
    Given a machine with 4000 MB of available memory
    And a model file of 5000 MB
    When the user runs infer with it
    Then it exits with 1
    And stderr names node local, 6000 MB needed and 4000 MB available
    And stderr says "smaller quantisation"
    And no worker was started
    When a client asks the hive to start a worker for it, in vain
    Then the error is VRAM_EXHAUSTED with 6000 required and 4000 available

  @s24 @h9
  Scenario: A model larger than the machine
    Given a queen runs
    And a model file as large as this machine's memory
    When the user runs infer with it
    Then it exits with 1
    And stderr names node local, what is needed and what is available
    And stderr says "smaller quantisation"
    And no worker was started

  @s25
  Scenario: A backend that is there
    Given a queen runs
    When the user runs infer with backend cpu
    Then it exits with 0
    And stderr says "on cpu:0"
    And the worker is listed with backend cpu and device 0

  @s26
  Scenario: A backend that is not there
    Given a queen runs
    When the user runs infer with backend metal
    Then it exits with 1
    And stderr says "node local: there is no backend metal here; available: cpu"
    And stderr says "rbee detect"
    When a client asks the queen for a task with backend metal
    Then it is answered with 422 and BACKEND_UNAVAILABLE
    And no worker was started
