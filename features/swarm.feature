Feature: The whole swarm
  Workers on this machine and on two others are seen, asked and ended from one place.

  @s59
  Scenario: The workers of all machines
    Given workers on local, attic and cellar
    When the user lists the workers
    Then it exits with 0
    And each of them is listed with its node and its state

  @s60
  Scenario: The health of one machine's workers
    Given workers on local, attic and cellar
    When the user asks for the health of the workers on attic
    Then it exits with 0
    And stdout names the worker on attic alone, which is ready

  @s61
  Scenario: A worker is ended
    Given workers on local, attic and cellar
    When the user shuts the worker on attic down
    Then it exits with 0
    And that worker was told, has unloaded and is gone, and the others live

  @s62
  Scenario: The logs of another machine, live
    Given workers on local, attic and cellar
    When the user follows the logs of cellar
    Then lines of its hive and of its worker are shown
    And what happens there meanwhile is shown as it happens
    And Ctrl+C ends it with 130
