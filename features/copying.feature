Feature: Models from machine to machine
  What one machine of the swarm has, the next one copies from there; the hub gives what is missing.

  M is hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF; a stand-in for the hub holds it.

  Scenario: A model that a node has is copied to the next one
    Given the hub holds M
    And a queen runs
    And attic and cellar are registered, with rbee, and reach that hub
    And attic has fetched M
    When the user runs infer with M and 20 tokens on cellar
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And stderr says where M is copied from
    And the hub has sent as many bytes as M has
    And attic and cellar both list M

  Scenario: A node that gives other bytes than the hub announces
    Given the hub holds M
    And a queen runs
    And attic and cellar are registered, with rbee, and reach that hub
    And attic has fetched M
    But the last byte of its file has changed
    When the user runs infer with M and 20 tokens on cellar
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And stderr says "Copying from attic failed: it sent other bytes than"
    And the hub has sent M twice

  Scenario: A node whose hive is killed while another one copies
    Given the hub holds M
    And a queen runs
    And attic and cellar are registered, with rbee, and reach that hub
    And attic has fetched M
    And half of what attic sends arrives
    When the user pulls M on cellar, and the hive of attic is killed half-way
    Then it exits with 0
    And stderr says "Downloading the rest of hf:"
    And attic and the hub have together given M once more
