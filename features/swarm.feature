Feature: The whole swarm
  Workers on this machine and on two others are seen, asked and ended from one place.

  @s61
  Scenario: A worker is ended
    Given workers on local, attic and cellar
    When the user shuts the worker on attic down
    Then it exits with 0
    And that worker was told, has unloaded and is gone, and the others live
