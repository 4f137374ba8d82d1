Feature: GGUF files
  What a model is stands in the header of its file, and its size is that on the disk.

  M is hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF: one small Llama, quantised by llama.cpp.

  @s19
  Scenario: In a repository the files that end in .gguf are models
    Given the hub holds M among files that are no models
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And no process asked the hub for more than M once

  @s19
  Scenario: A file of the user's own
    Given a queen runs
    And the user's own file bees.gguf, of which only its header says that it is in Q5_K_M
    When the user has that file shown
    Then it exits with 0
    And what its header says is shown
    When the user runs infer with that file and 100 tokens
    Then it exits with 0
    And stdout holds M's whole answer

  @s19
  Scenario Outline: What is no GGUF file
    Given the user's own file <name>, which is <what>
    When the user runs infer with that file and 100 tokens
    Then it exits with 1
    And stderr says "<words>"
    And no worker has ever run

    Examples:
      | name      | what              | words                    |
      | bees.bin  | in GGUF           | file:/absolute/path.gguf |
      | bees.gguf | a text            | is not a GGUF file       |
      | bees.gguf | cut off at 1 MB   | is cut off               |
      | bees.gguf | cut in its header | is corrupt or cut off    |

  Scenario Outline: What is a GGUF file, and no model that writes text here
    Given the user's own file my bees (1).gguf, <what>
    When the user has that file shown
    Then it exits with 0
    And stdout says "<words>"
    When the user runs infer with that file and 100 tokens
    Then it exits with 1
    And stderr says "<words>"
    And no worker has ever run

    Examples:
      | what                                   | words                                    |
      | an embedding model                     | an embedding model: it turns a text into |
      | a model of an architecture of 2030     | does not know the architecture bumblebee |

  @s20
  Scenario: Vocabulary, end token and quantisation
    Given the hub holds M
    And a queen runs
    And the user has run infer with M
    Then its header gives a vocabulary of 32000 tokens, the end token 2 and Q4_K_M

  @s20
  Scenario: Generation stops at the end token
    Given the user's own file bees.gguf, of which only its header says that it is in Q5_K_M
    When the user runs infer with that file and 100 tokens for a script
    Then it has stopped after the 26 letters of M's answer, at the end token

  @s20
  Scenario: The end token is the one that the header names
    Given the user's own file bees.gguf, whose header names the letter m as the end token
    When the user runs infer with that file and 100 tokens for a script
    Then it has stopped after the 12 letters of M's answer, at the end token

  @s21
  Scenario: Three quantisations of one model
    Given the hub holds M
    And a queen runs
    And the user has run infer with M
    When the user runs infer with M in Q4_K_M, Q5_K_M and Q8_0
    Then each gives M's whole answer
    And the larger its file, the more memory a worker takes

  @s22
  Scenario: The size on the disk
    Given the hub holds M in Q4_K_M, Q5_K_M and Q8_0, each with 5 MB that its header does not mention
    And workers have one slot of 200 tokens
    And a queen runs
    When the user runs infer with M in Q4_K_M, Q5_K_M and Q8_0
    Then the catalogue's sizes are those of the files on the disk
    And the check reckoned with 1.2 times these sizes and the cache of 200 tokens
